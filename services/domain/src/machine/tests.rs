mod commands;
mod fixture;
mod links;
mod properties;
mod sessions;
mod traces;
