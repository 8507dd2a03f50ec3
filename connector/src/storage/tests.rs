use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn what_is_appended_and_replaced_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut storage = FileStorage::new(&path);
    assert_eq!(storage.load().unwrap(), b"");
    storage.append(b"one").unwrap();
    storage.append(b"two").unwrap();
    assert_eq!(FileStorage::new(&path).load().unwrap(), b"onetwo");
    storage.truncate(4).unwrap();
    storage.append(b"X").unwrap();
    assert_eq!(storage.load().unwrap(), b"onetX");
    storage.replace(b"fresh").unwrap();
    storage.append(b"!").unwrap();
    assert_eq!(FileStorage::new(&path).load().unwrap(), b"fresh!");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_damaged_file_is_kept_beside_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut storage = FileStorage::new(&path);
    storage.append(b"broken").unwrap();
    storage.set_aside().unwrap();
    assert_eq!(storage.load().unwrap(), b"");
    assert_eq!(fs::read(folder.path().join("journal.damaged")).unwrap(), b"broken");
}
