use proptest::prelude::*;

use super::*;
use crate::decode::baseline::scan::Scan;

/// Stuffs a zero behind every 0xff.
fn stuffed(bytes: &[u8]) -> Vec<u8> {
    let stuff = |byte: &u8| match byte {
        0xff => vec![0xff, 0],
        byte => vec![*byte],
    };
    bytes.iter().flat_map(stuff).collect()
}

fn table(counts: [u8; MAX_BITS], values: &[u8]) -> Option<Table> {
    Table::new(&Codes {
        counts,
        values: values.to_vec(),
    })
}

/// Tables K.3 to K.6 by class and destination.
fn standard(kind: u8) -> Table {
    let tables = segment(&STANDARD_SEGMENT[4..]).unwrap();
    let (_, codes) = tables.into_iter().find(|(of, _)| *of == kind).unwrap();
    Table::new(&codes).unwrap()
}

#[test]
fn codes_of_every_length_are_read() {
    // One code of each length, all ones but for the last bit: 0, 10, 110, …
    let table = table([1; MAX_BITS], &(0..16).collect::<Vec<u8>>()).unwrap();
    for length in 1..=16_u32 {
        let code = (0xffff_u32 << (17 - length)) & 0xffff;
        let [_, _, high, low] = code.to_be_bytes();
        let scan = Scan::of(&stuffed(&[high, low]));
        let mut bits = scan.bits(0);
        let value = u32::from(table.next(&mut bits).unwrap());
        assert_eq!((value, bits.position()), (length - 1, length as usize));
    }
    let scan = Scan::of(&[0xff, 0, 0xff, 0]);
    assert_eq!(table.next(&mut scan.bits(0)), None, "all ones are no code");
}

#[test]
fn what_is_no_prefix_code_is_refused() {
    let mut three_of_one_bit = [0; MAX_BITS];
    three_of_one_bit[0] = 3;
    assert!(table(three_of_one_bit, &[1, 2, 3]).is_none());
    assert!(table([1; MAX_BITS], &[1, 2]).is_none(), "too few values");
    assert!(table([0; MAX_BITS], &[1]).is_none(), "too many values");
    let mut complete = [0; MAX_BITS];
    (complete[0], complete[1]) = (1, 2);
    assert!(table(complete, &[1, 2, 3]).is_none(), "a code of all ones");
}

#[test]
fn tables_of_a_camera_are_made_once_and_many_do_not_grow_without_end() {
    let own = |first: u8| Codes {
        counts: [1; MAX_BITS],
        values: (first..first + 16).collect(),
    };
    let one = Table::of(&own(1)).unwrap();
    assert!(Arc::ptr_eq(&one, &Table::of(&own(1)).unwrap()));
    (2..100).for_each(|n| drop(Table::of(&own(n))));
    assert!(RECENT.lock().unwrap().len() <= MAX_RECENT);
}

#[test]
fn the_standard_tables_are_made_once() {
    for (_, codes) in segment(&STANDARD_SEGMENT[4..]).unwrap() {
        let (one, other) = (Table::of(&codes).unwrap(), Table::of(&codes).unwrap());
        assert!(Arc::ptr_eq(&one, &other));
    }
}

#[test]
fn a_block_that_is_full_takes_nothing_of_the_next() {
    // 1100 0: a zero and a coefficient. 61 times 00 0: a coefficient. What follows reads like one.
    let mut bytes = [0; 32];
    bytes[0] = 0b1100_0000;
    bytes[23] = 0b0000_0001;
    let scan = Scan::of(&bytes);
    let mut bits = scan.bits(0);
    assert_eq!(standard(0x10).pass(&mut bits, 1), Some(()));
    assert_eq!(bits.position(), 5 + 61 * 3);
}

#[test]
fn a_block_that_is_full_gives_back_what_was_read_of_the_next() {
    // 63 times 00 0: a coefficient. They are read two at once.
    let scan = Scan::of(&[0; 32]);
    let (table, from) = (standard(0x10), scan.bits(0));
    let stop = table.read(from, 64, |_, _| {}).unwrap();
    assert_eq!((stop.0.position(), stop.1), (64 * 3, BLOCK + 1));
    let rest = table.pass_rest(from, stop).unwrap();
    assert_eq!(rest.position(), 63 * 3);
}

/// Reads a block one code after the other: the coefficients, and whether it is one.
fn read_slowly(table: &Table, bits: &mut Bits<'_>) -> Option<[i16; 64]> {
    let (mut index, mut block) = (1, [0; 64]);
    while index < BLOCK {
        bits.refill();
        let (size, by) = advance(table.next(bits)?)?;
        index += u32::from(by);
        let value = extend(bits.take(u32::from(size)), u32::from(size));
        if let Some(place) = block.get_mut(index as usize - 1) {
            *place = i16::try_from(value).unwrap();
        }
    }
    is_end(index)?;
    Some(block)
}

proptest! {
    #[test]
    fn codes_together_are_the_same_as_one_by_one(
        bytes in prop::collection::vec(any::<u8>(), 64..512),
        is_chroma: bool,
        until in prop::sample::select(vec![5_u32, 25, 64]),
    ) {
        let table = standard(if is_chroma { 0x11 } else { 0x10 });
        let scan = Scan::of(&stuffed(&bytes));
        let (mut together, mut slowly) = (scan.bits(0), scan.bits(0));
        while together.position() < scan.length() {
            let from = together;
            let passed = table.pass(&mut together, 1);
            let block = read_slowly(&table, &mut slowly);
            prop_assert_eq!(passed.is_some(), block.is_some());
            let mut read = [0; 256];
            let stop = table.read(from, until, |n, value| read[usize::from(n)] = value);
            let rest = stop.and_then(|stop| table.pass_rest(from, stop));
            prop_assert_eq!(rest.is_some(), block.is_some());
            let (Some(block), Some(rest)) = (block, rest) else { break };
            prop_assert_eq!(together.position(), slowly.position());
            prop_assert_eq!(rest.position(), slowly.position());
            let until = until as usize;
            prop_assert_eq!(&read[..until], &block[..until]);
        }
    }

    #[test]
    fn differences_are_the_same_with_their_code_and_without(bytes in prop::collection::vec(any::<u8>(), 16)) {
        let table = standard(0x00);
        let scan = Scan::of(&stuffed(&bytes));
        let (mut known, mut slowly) = (scan.bits(0), scan.bits(0));
        let want = table.long_difference(slowly);
        let got = table.difference(&mut known);
        prop_assert_eq!(got, want.map(|(_, value)| value));
        if let Some((after, _)) = want {
            slowly = after;
            prop_assert_eq!(known.position(), slowly.position());
        }
    }
}
