//! A refresh: what a shop's own photos say is taken into a bundle that exists.
pub mod cache;
pub mod embed;
pub mod examples;
pub mod loss;
pub mod maps;
pub mod score;
pub mod session;
#[cfg(test)]
mod tests;
