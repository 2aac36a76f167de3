//! Heat: what the board says about its temperature, and looking at fewer frames before the board
//! slows itself down.
//!
//! A board that throttles does so for everything at once: frames come late, the broker waits. Looking
//! at half of the frames takes about half of the work away and keeps the rest punctual. [`Governor`]
//! is pure: readings and time are arguments; [`Board`] does the reading.

mod board;
mod governor;

pub use board::{Board, Reading};
pub use governor::{Governor, MAX_LEVEL};
