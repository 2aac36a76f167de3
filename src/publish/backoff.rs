//! Reconnect delays.
