//! Tests of the HTTP/2 codec: tables of frames and heads, windows, floods, time, and the law.

mod bridge;
mod documentation;
mod driver;
mod ends;
mod exchange;
mod fixture;
mod frames;
mod heads;
mod law;
mod windows;
mod wire;
