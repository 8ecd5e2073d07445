//! Names, addresses and resources as users write them. Data and its validation only: no IO.
