#![no_main]

vedetta_fuzz::target!("photo");
