mod commands;
mod fixture;
mod links;
mod ownership;
mod properties;
mod sessions;
mod traces;
