use super::*;
use crate::chance::Chance;
use crate::tenant::Tenant;

#[test]
fn every_choice_is_found_also_within_what_is_signed() {
    let schema = Schema::load().unwrap();
    let variants = schema.variants("SessionUp").unwrap();
    let has = |names: &[&str]| variants.iter().any(|variant| variant.0 == names);
    assert!(has(&["ping"]));
    assert!(has(&["to_machine", "message", "probe"]));
    assert!(has(&["to_machine", "message", "command", "header", "COMMAND_KIND_STEER"]));
    assert!(schema.variants("LinkUp").unwrap().len() > 20);
    assert!(schema.methods().contains(&"MachineHost/Exchange".to_owned()));
}

#[test]
fn a_sample_holds_its_owners_values_and_every_field_can_be_changed() {
    let schema = Schema::load().unwrap();
    let tenant = Tenant::new(&mut Chance::new(1), 7);
    for root in ["SessionUp", "LinkUp", "GatewayFrame", "NodeFrame", "ReportLinksRequest"] {
        for variant in schema.variants(root).unwrap() {
            let sample = schema.sample(root, &variant, &tenant.known).unwrap();
            let expected: Vec<_> = variant.0.iter().filter(|name| choices(&sample).contains(name)).collect();
            assert!(!expected.is_empty() || variant.0.is_empty(), "{root} {variant:?}");
            for path in schema.fields(&sample).unwrap() {
                let mut changed = sample.clone();
                let kind = path.last().unwrap().kind();
                let other = if kind == Kind::Bytes { Value::Bytes(Bytes::from_static(b"other")) } else { continue };
                schema.put(&mut changed, &path, &other).unwrap();
                assert!(changed != sample, "{root} {variant:?} {path:?}");
            }
        }
    }
}
