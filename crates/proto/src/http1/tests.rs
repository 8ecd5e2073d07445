//! Tests of the HTTP/1 codec.

mod documentation;
mod driver;
mod exchange;
mod law;
mod requests;
mod responses;
