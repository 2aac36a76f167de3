//! Publishing against a real mosquitto: every topic of the contract, and what happens when things
//! go wrong on the way. Prints that it skipped where mosquitto is not installed.

mod broker;
mod contract;
mod device;
mod faults;
mod listener;
mod login;
mod puppet;
mod requests;
