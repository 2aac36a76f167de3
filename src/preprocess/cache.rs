//! Weight tables that are kept: a daemon needs a few per zone and frame size.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Tables kept at most: a folder of photos of many sizes must not grow without end.
const MAX_TABLES: usize = 64;

/// Tables by what they were made for.
#[derive(Debug)]
pub(super) struct Cache<K, T>(Mutex<HashMap<K, Arc<T>>>);

impl<K, T> Default for Cache<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T> Cache<K, T> {
    /// The table for `key`, made when it is not there.
    pub fn get(&self, key: K, make: impl FnOnce() -> T) -> Arc<T> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tables.len() >= MAX_TABLES && !tables.contains_key(&key) {
            tables.clear();
        }
        Arc::clone(tables.entry(key).or_insert_with(|| Arc::new(make())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_made_once_and_many_do_not_grow_it_without_end() {
        let cache = Cache::default();
        assert_eq!(*cache.get(0, || 7), 7);
        assert_eq!(*cache.get(0, || 8), 7);
        for key in 0..1000 {
            cache.get(key, || key);
        }
        assert!(cache.0.lock().unwrap().len() <= MAX_TABLES);
    }
}
