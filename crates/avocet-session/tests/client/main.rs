//! The client role: against the real server role, and against packets made by hand.

mod cuts;
mod pair;
mod script;
//mod stories;
