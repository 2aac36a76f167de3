//! Publishing against a real mosquitto: every topic of the contract, and what happens when things
//! go wrong on the way, and bundles that arrive by command. Prints that it skipped where mosquitto is
//! not installed.

mod board;
mod broker;
mod contract;
mod device;
mod download;
mod faults;
mod install;
mod listener;
mod login;
mod puppet;
mod refused;
mod requests;
mod secrets;
mod server;
mod supervised;
#[path = "../support/tiny_bundle.rs"]
#[allow(dead_code, reason = "each test file uses a part")]
mod tiny_bundle;
mod trial;
