//! Licences, sources and duplicates of all dependencies against `.deny.toml`: what `cargo deny check`
//! does beside looking for advisories, without the minutes it takes to install.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde::Deserialize;
use spdx::{Expression, LicenseReq, ParseMode};

#[derive(Deserialize)]
struct Rules {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

fn rules() -> Rules {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".deny.toml");
    toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Every package that any feature on any platform brings in.
fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--all-features",
            "--locked",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    let metadata: Metadata = serde_json::from_slice(&output.stdout).unwrap();
    metadata.packages
}

fn is_allowed(license: &str, rules: &Rules) -> Result<bool, String> {
    let expression = Expression::parse_mode(license, ParseMode::LAX).map_err(|e| e.to_string())?;
    Ok(expression.evaluate(|one: &LicenseReq| rules.licenses.allow.contains(&one.to_string())))
}

#[test]
fn every_licence_is_one_that_may_be_used() {
    let rules = rules();
    for package in packages() {
        let (name, version) = (&package.name, &package.version);
        let license = package.license.as_deref().unwrap_or_default();
        let allowed = is_allowed(license, &rules);
        assert_eq!(
            allowed,
            Ok(true),
            "{name} {version} is under {license:?}; see .deny.toml"
        );
    }
}

#[test]
fn a_licence_that_is_not_on_the_list_is_found() {
    let rules = rules();
    assert_eq!(is_allowed("MIT OR GPL-3.0-only", &rules), Ok(true));
    assert_eq!(is_allowed("MIT AND GPL-3.0-only", &rules), Ok(false));
    assert_eq!(is_allowed("AGPL-3.0-only", &rules), Ok(false));
    assert_eq!(is_allowed("MIT/Apache-2.0", &rules), Ok(true));
    assert!(is_allowed("", &rules).is_err());
}

#[test]
fn everything_comes_from_crates_io() {
    for package in packages() {
        let source = package.source.unwrap_or_default();
        let ours = package.name == "vedetta";
        let is_registry =
            source.starts_with("registry+https://github.com/rust-lang/crates.io-index");
        assert!(
            ours || is_registry,
            "{} comes from {source:?}",
            package.name
        );
    }
}

#[test]
fn no_crate_comes_in_two_versions_that_nobody_looked_at() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in packages() {
        versions
            .entry(package.name)
            .or_default()
            .insert(package.version);
    }
    let known: BTreeSet<String> = rules()
        .bans
        .skip
        .into_iter()
        .map(|skip| skip.name)
        .collect();
    let several: BTreeSet<String> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .map(|(name, _)| name.clone())
        .collect();
    let new: Vec<_> = several
        .difference(&known)
        .map(|name| (name, &versions[name]))
        .collect();
    assert_eq!(new, [], "twice; take one version or name it in .deny.toml");
    let gone: Vec<_> = known.difference(&several).collect();
    assert_eq!(
        gone,
        [] as [&String; 0],
        "no longer twice: take it out of .deny.toml"
    );
}
