//! Fuzz targets of the wire. What they check is in [`checks`], which the tests of the tree compile too, to replay
//! the committed corpus without libFuzzer.

pub mod checks;
