//! The rules that the tree itself keeps, so that no review has to.

mod documents;
mod functions;
mod layers;
mod logs;
mod secrets;
mod source;
mod sources;
