// SPDX-License-Identifier: MIT OR Apache-2.0
//! Circles between the files of a crate: files that use each other, directly or through others. The
//! project has none, so each file can be read after those that it uses.
//!
//! A file uses another where a path of it names an item of the other, re-exports followed. What a
//! module declares with `mod` it does not use by that; tests do not count. Methods are not seen,
//! since only their type says where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use syn::visit::{self, Visit};

/// The first files of the crates whose files are examined.
pub const ROOTS: &[&str] = &[
    "demo-device/abi/src/lib.rs",
    "demo-device/endpoint/src/lib.rs",
    "demo-device/pcie/src/lib.rs",
    "guest-app/cases/src/lib.rs",
    "guest-app/cli/src/main.rs",
    "guest-app/doctor/src/lib.rs",
    "guest-app/init/src/lib.rs",
    "guest-app/library/src/lib.rs",
    "guest-driver/svm_demo_main.rs",
    "tests/machine/src/lib.rs",
    "tests/src/lib.rs",
    "tests/suite/src/lib.rs",
    "vmm-glue/host-iommu/src/lib.rs",
    "vmm-glue/iommufd/src/lib.rs",
    "vmm-glue/launch/src/main.rs",
    "vmm-glue/layout/src/lib.rs",
    "vmm-glue/qemu/src/lib.rs",
    "vmm-glue/vtd/src/lib.rs",
];

/// How many re-exports a name may pass through.
const MOST_REEXPORTS: usize = 8;

/// A path from the root of the crate.
type Name = Vec<String>;

/// A module.
#[derive(Debug, Default)]
struct Module {
    file: PathBuf,
    /// What its `use` brings in, by the name that it has here.
    imports: BTreeMap<String, Name>,
    /// Modules whose names it has by `use module::*`.
    globs: Vec<Name>,
    /// What it defines itself.
    items: BTreeSet<String>,
    /// Modules that are compiled for tests only.
    for_tests: BTreeSet<String>,
    /// All paths in it that begin in this crate.
    paths: Vec<Name>,
}

/// The modules of a crate, by their paths.
#[derive(Debug, Default)]
struct Crate(BTreeMap<Name, Module>);

/// Files that use each other: each with those of them that it uses.
pub type Circle = BTreeMap<PathBuf, Vec<PathBuf>>;

/// The circles among the files of a crate.
///
/// # Errors
///
/// A file cannot be read, or is not Rust.
pub fn circles(root: &Path) -> Result<Vec<Circle>> {
    let mut all = Crate::default();
    let directory = root.parent().context("a file without a directory")?;
    all.load(root, directory, Vec::new())?;
    let edges = all.edges();
    let circles = components(&edges).into_iter().map(|circle| {
        let used = |file: &PathBuf| edges[file].intersection(&circle).cloned().collect();
        let entries = circle.iter().map(|file| (file.clone(), used(file)));
        entries.collect()
    });
    Ok(circles.collect())
}

/// What is wrong in the project below `top`, a sentence for each circle.
///
/// # Errors
///
/// A file cannot be read, or is not Rust.
pub fn check(top: &Path) -> Result<Vec<String>> {
    let mut sentences = Vec::new();
    for root in ROOTS {
        for circle in circles(&top.join(root))? {
            let mut sentence = format!("{root}: files use each other:");
            for (file, uses) in &circle {
                let uses: Vec<_> = uses.iter().map(|file| name(file)).collect();
                sentence += &format!("\n    {} uses {}", name(file), uses.join(", "));
            }
            sentences.push(sentence);
        }
    }
    Ok(sentences)
}

/// A file as sentences name it: with its directory.
fn name(file: &Path) -> String {
    let directory = file.parent().and_then(Path::file_name).unwrap_or_default();
    let own = file.file_name().unwrap_or_default();
    format!(
        "{}/{}",
        Path::new(directory).display(),
        Path::new(own).display()
    )
}

impl Crate {
    /// Reads a file, which is this module, and those of the modules that it declares.
    fn load(&mut self, file: &Path, children: &Path, name: Name) -> Result<()> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let parsed = syn::parse_file(&text).with_context(|| file.display().to_string())?;
        self.add(file, children, name, &parsed.items)
    }

    fn add(&mut self, file: &Path, children: &Path, name: Name, items: &[syn::Item]) -> Result<()> {
        let mut module = Module {
            file: file.to_owned(),
            ..Module::default()
        };
        let mut inner = Vec::new();
        for item in items {
            if is_for_tests(attributes(item)) {
                if let syn::Item::Mod(item) = item {
                    module.for_tests.insert(item.ident.to_string());
                }
                continue;
            }
            if let Some(ident) = ident(item) {
                module.items.insert(ident.to_string());
            }
            match item {
                syn::Item::Use(item) => {
                    let mut found = Vec::new();
                    flatten(&item.tree, Vec::new(), &mut found);
                    for (path, alias) in found {
                        module.import(path, alias);
                    }
                }
                syn::Item::Mod(item) => inner.push(item),
                other => Paths(&mut module.paths).visit_item(other),
            }
        }
        self.0.insert(name.clone(), module);
        for item in inner {
            let own = item.ident.to_string();
            let child = [name.as_slice(), std::slice::from_ref(&own)].concat();
            if let Some((_, items)) = &item.content {
                self.add(file, &children.join(&own), child, items)?;
                continue;
            }
            let (path, below) = match path_attribute(&item.attrs) {
                Some(path) => {
                    let directory = file.parent().context("a file without a directory")?;
                    let path = directory.join(path);
                    (path.clone(), path.with_extension(""))
                }
                None => {
                    let flat = children.join(format!("{own}.rs"));
                    let folder = children.join(&own);
                    match flat.is_file() {
                        true => (flat, folder),
                        false => (folder.join("mod.rs"), folder),
                    }
                }
            };
            self.load(&path, &below, child)?;
        }
        Ok(())
    }

    /// The file that has what a module names; none if that is of another crate. `left` re-exports
    /// may be followed.
    fn file_of(&self, module: &Name, path: &[String], left: usize) -> Option<&Path> {
        let start = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => module.clone(),
            "super" => {
                let above = path.iter().take_while(|word| *word == "super").count();
                module[..module.len().checked_sub(above)?].to_vec()
            }
            first => {
                let child = [module.as_slice(), &[first.to_owned()]].concat();
                self.0.contains_key(&child).then(|| module.clone())?
            }
        };
        let is_prefix = |word: &&String| ["crate", "self", "super"].contains(&word.as_str());
        let rest: Vec<String> = path.iter().skip_while(is_prefix).cloned().collect();
        self.resolve(start, &rest, left)
    }

    fn resolve(&self, mut at: Name, rest: &[String], left: usize) -> Option<&Path> {
        let mut rest = rest;
        while let Some((first, others)) = rest.split_first() {
            let child = [at.as_slice(), std::slice::from_ref(first)].concat();
            if self.0.contains_key(&child) {
                (at, rest) = (child, others);
                continue;
            }
            let module = self.0.get(&at)?;
            if module.for_tests.contains(first) {
                return None;
            }
            let left = left.checked_sub(1)?;
            if let Some(path) = module.imports.get(first) {
                let path = [path.as_slice(), others].concat();
                return self.file_of(&at, &path, left);
            }
            if !module.items.contains(first) {
                for glob in &module.globs {
                    let path = [glob.as_slice(), rest].concat();
                    if let Some(file) = self.file_of(&at, &path, left) {
                        return Some(file);
                    }
                }
            }
            break;
        }
        Some(&self.0.get(&at)?.file)
    }

    /// Which file uses which.
    fn edges(&self) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
        let mut edges: BTreeMap<PathBuf, BTreeSet<PathBuf>> = BTreeMap::new();
        for (name, module) in &self.0 {
            let globs = module.globs.iter();
            let paths = module.paths.iter().chain(module.imports.values());
            for path in paths.chain(globs) {
                if let Some(file) = self.file_of(name, path, MOST_REEXPORTS) {
                    if file != module.file {
                        let used = edges.entry(module.file.clone()).or_default();
                        used.insert(file.to_owned());
                    }
                }
            }
        }
        edges
    }
}

impl Module {
    fn import(&mut self, path: Name, alias: String) {
        match alias.as_str() {
            "*" => self.globs.push(path),
            _ => {
                // Several may be without a name of their own.
                self.paths.push(path.clone());
                self.imports.insert(alias, path);
            }
        }
    }
}

/// The paths of a `use`, with the name that each has afterwards.
fn flatten(tree: &syn::UseTree, mut path: Name, found: &mut Vec<(Name, String)>) {
    match tree {
        syn::UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            flatten(&tree.tree, path, found);
        }
        syn::UseTree::Name(tree) if tree.ident == "self" => {
            let alias = path.last().cloned().unwrap_or_default();
            found.push((path, alias));
        }
        syn::UseTree::Name(tree) => {
            path.push(tree.ident.to_string());
            found.push((path, tree.ident.to_string()));
        }
        syn::UseTree::Rename(tree) => {
            if tree.ident != "self" {
                path.push(tree.ident.to_string());
            }
            found.push((path, tree.rename.to_string()));
        }
        syn::UseTree::Glob(_) => found.push((path, "*".to_owned())),
        syn::UseTree::Group(tree) => {
            for item in &tree.items {
                flatten(item, path.clone(), found);
            }
        }
    }
}

/// Collects the paths of more than one word.
struct Paths<'a>(&'a mut Vec<Name>);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let words = path
                .segments
                .iter()
                .map(|segment| segment.ident.to_string());
            self.0.push(words.collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let mut found = Vec::new();
        flatten(&item.tree, Vec::new(), &mut found);
        self.0.extend(found.into_iter().map(|(path, _)| path));
    }

    /// What a macro is given is no Rust yet: paths are looked for among its words.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        self.visit_path(&item.path);
        let text = item.tokens.to_string();
        let words: Vec<&str> = text.split_whitespace().collect();
        let mut at = 0;
        while at < words.len() {
            let mut path = vec![words[at].trim_start_matches(['(', '&', '*', '[', '{'])];
            while words.get(at + 1) == Some(&"::") && at + 2 < words.len() {
                path.push(words[at + 2]);
                at += 2;
            }
            if path.len() > 1 {
                let clean = |word: &str| {
                    let end = word.find(|c: char| !c.is_alphanumeric() && c != '_');
                    word[..end.unwrap_or(word.len())].to_owned()
                };
                self.0.push(path.into_iter().map(clean).collect());
            }
            at += 1;
        }
    }
}

/// Whether something is compiled for tests only.
fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        list.path.is_ident("cfg") && list.tokens.to_string().starts_with("test")
    })
}

/// The file that `#[path = "…"]` names.
fn path_attribute(attributes: &[syn::Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| {
        let value = &attribute.meta.require_name_value().ok()?;
        if !value.path.is_ident("path") {
            return None;
        }
        match &value.value {
            syn::Expr::Lit(syn::ExprLit {
                lit: syn::Lit::Str(text),
                ..
            }) => Some(text.value()),
            _ => None,
        }
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn ident(item: &syn::Item) -> Option<&syn::Ident> {
    match item {
        syn::Item::Const(item) => Some(&item.ident),
        syn::Item::Enum(item) => Some(&item.ident),
        syn::Item::Fn(item) => Some(&item.sig.ident),
        syn::Item::Macro(item) => item.ident.as_ref(),
        syn::Item::Static(item) => Some(&item.ident),
        syn::Item::Struct(item) => Some(&item.ident),
        syn::Item::Trait(item) => Some(&item.ident),
        syn::Item::Type(item) => Some(&item.ident),
        syn::Item::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// The sets of more than one file in which each reaches each.
fn components(edges: &BTreeMap<PathBuf, BTreeSet<PathBuf>>) -> Vec<BTreeSet<PathBuf>> {
    let reached = |from: &PathBuf| {
        let mut seen = BTreeSet::new();
        let mut left = vec![from];
        while let Some(file) = left.pop() {
            for next in edges.get(file).into_iter().flatten() {
                if seen.insert(next) {
                    left.push(next);
                }
            }
        }
        seen
    };
    let all: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> =
        edges.keys().map(|file| (file, reached(file))).collect();
    let mut found = BTreeSet::new();
    for (file, reaches) in &all {
        if reaches.contains(file) {
            let circle = reaches.iter().filter(|other| {
                all.get(*other)
                    .is_some_and(|of_other| of_other.contains(file))
            });
            found.insert(circle.map(|file| (*file).clone()).collect());
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), files);
        let circles = circles(&directory.path().join("lib.rs")).unwrap();
        let relative = |file: &PathBuf| {
            let name = file.strip_prefix(directory.path()).unwrap();
            name.display().to_string()
        };
        let list = circles.iter();
        list.map(|circle| circle.keys().map(relative).collect())
            .collect()
    }

    #[test]
    fn files_that_use_each_other_are_found() {
        let two = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f() { let _ = crate::A(B); }"),
        ];
        assert_eq!(found(&two), [["a.rs", "b.rs"]]);
        let in_a_macro = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub fn f() { println!(\"{}\", crate::b::g()) }"),
            ("b.rs", "pub fn g() -> u8 { super::a::f(); 0 }"),
        ];
        assert_eq!(found(&in_a_macro), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn a_child_that_uses_its_parent_is_found() {
        let files = [
            ("lib.rs", "mod a;"),
            (
                "a/mod.rs",
                "mod b; pub fn f() { b::g() } pub const N: u8 = 1;",
            ),
            ("a/b.rs", "use super::N; pub fn g() { assert!(N > 0) }"),
        ];
        assert_eq!(found(&files), [["a/b.rs", "a/mod.rs"]]);
    }

    #[test]
    fn one_direction_and_tests_are_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use b::B;"),
            (
                "a.rs",
                "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }",
            ),
            ("b.rs", "use crate::a::A; pub struct B(A);"),
        ];
        assert_eq!(found(&files), [[""; 0]; 0]);
    }
}
