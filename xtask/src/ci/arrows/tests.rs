//! The rule, on sets of modules of a few lines each.

use super::*;

fn modules(files: &[(&str, &str)]) -> Vec<Module> {
    files
        .iter()
        .map(|(file, text)| Module::parse(file, imports::module_path(file), text, "cmiot_proxy").unwrap())
        .collect()
}

fn order(text: &str) -> Vec<Vec<String>> {
    levels(&format!("# Title\n{BEGIN}\n{text}\n{END}\n")).unwrap()
}

fn imported(text: &str) -> Vec<String> {
    let module = Module::parse("a/b.rs", imports::module_path("a/b.rs"), text, "cmiot_proxy").unwrap();
    module.imports.iter().map(|import| format!("{} {}", import.line, import.path.join("::"))).collect()
}

fn cycle(cycles: &[graph::Cycle]) -> Vec<String> {
    cycles.iter().map(|cycle| cycle.modules.join(" ")).collect()
}

#[test]
fn imports_that_point_down_pass() {
    let modules = modules(&[
        ("lib.rs", "pub mod top; pub mod low;"),
        ("main.rs", "mod cli; use cmiot_proxy::top::Top; fn main() { cli::run() }"),
        ("cli.rs", "use cmiot_proxy::low;"),
        ("top.rs", "mod part; use crate::low::Low;"),
        ("top/part.rs", "use super::Top; fn f() { crate::low::g() }"),
        ("low.rs", "pub struct Low;"),
    ]);
    let findings = Findings::of(&modules, &order("main\ncli\ntop\nlow"));
    assert!(findings.is_empty(), "{}", report::text(&findings));
    assert_eq!(findings.modules, 4);
}

#[test]
fn a_cycle_is_found_whatever_the_order_says() {
    let modules = modules(&[
        ("a.rs", "use crate::b::B;"),
        ("b.rs", "use crate::c::C;"),
        ("c.rs", "fn f() -> crate::a::A { crate::a::A }"),
    ]);
    let findings = Findings::of(&modules, &order("a\nb\nc"));
    assert_eq!(cycle(&findings.cycles), ["a b c"]);
    assert_eq!(findings.upward.keys().collect::<Vec<_>>(), [&("c".to_owned(), "a".to_owned())]);
    assert!(report::text(&findings).contains("c.rs:1 a::A"), "{}", report::text(&findings));
}

#[test]
fn an_import_against_the_order_is_found_without_a_cycle() {
    let modules = modules(&[("a.rs", ""), ("b.rs", "use crate::{a::A, c};"), ("c.rs", "")]);
    let upward = |text| Findings::of(&modules, &order(text)).upward.into_keys().collect::<Vec<_>>();
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    assert_eq!(upward("a\nb\nc"), [edge("b", "a")]);
    assert_eq!(upward("b\na c"), []);
    assert_eq!(upward("a\nb c"), [edge("b", "a"), edge("b", "c")], "modules of one level are apart");
}

#[test]
fn a_module_and_the_order_name_each_other() {
    let findings = Findings::of(&modules(&[("a.rs", ""), ("b.rs", "")]), &order("a\nc"));
    assert_eq!((findings.without_level, findings.unknown), (vec!["b".to_owned()], vec!["c".to_owned()]));
}

#[test]
fn a_cycle_inside_a_folder_is_found_also_through_names_of_the_parent() {
    let modules = modules(&[
        ("a.rs", "mod x; mod y; pub use y::Y;"),
        ("a/x.rs", "use super::Y;"),
        ("a/y.rs", "use super::x::deep::X;"),
        ("a/x/deep.rs", "pub struct X;"),
    ]);
    let findings = Findings::of(&modules, &order("a"));
    assert_eq!(cycle(&findings.inner_cycles), ["x y"]);
    assert_eq!(findings.inner_cycles[0].parent, "a");
    assert!(findings.cycles.is_empty());
}

#[test]
fn tests_import_what_they_like() {
    let modules = modules(&[
        ("a.rs", "use crate::b::B;"),
        (
            "b.rs",
            "#[cfg(test)] mod tests; #[cfg(test)] mod bench; #[cfg(test)] mod inner { use crate::a::A; }",
        ),
        ("b/tests.rs", "use crate::a::A;"),
        ("b/bench.rs", "use crate::a::A;"),
    ]);
    assert!(Findings::of(&modules, &order("a\nb")).is_empty());
}

#[test]
fn paths_are_read_in_every_form() {
    assert_eq!(imported("use crate::{x::{self, X}, y::*,\n z as w};"), ["1 x", "1 x::X", "1 y", "2 z"]);
    assert_eq!(imported("use super::c; use self::d::D;"), ["1 a::c", "1 a::b::d::D"]);
    assert_eq!(imported("fn f(x: &crate::x::X) { m!(cmiot_proxy::y::g::<crate::z::Z>()) }").len(), 3);
    assert_eq!(imported("mod inner { use super::super::c; }"), ["1 a::c"]);
    assert_eq!(imported("pub(crate) struct S; pub(super) fn f() {}"), [""; 0]);
}

#[test]
fn comments_strings_and_test_items_are_no_imports() {
    assert_eq!(
        imported("//! [`crate::x`]\n/// crate::x::X\nconst S: &str = \"crate::x\"; // crate::y"),
        [""; 0]
    );
    let text = "#[cfg(test)] use crate::x::X; #[cfg(test)] #[expect(dead_code)] fn f() { crate::x::g() }
        struct S { #[cfg(test)] x: crate::x::X, y: crate::y::Y }
        #[cfg(test)] impl S { fn g() { crate::x::g() } }
        use crate::z::Z;";
    assert_eq!(imported(text), ["2 y::Y", "4 z::Z"]);
}

#[test]
fn the_order_is_a_whole_block_that_names_each_module_once() {
    assert_eq!(order("a\n\nb, c"), [vec!["a"], vec!["b", "c"]]);
    for wrong in [format!("{BEGIN}\na\n"), format!("{BEGIN}\n{END}\n"), format!("{BEGIN}\na b\na\n{END}\n")] {
        assert!(levels(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_documents_order_can_be_read() {
    levels(&fs::read_to_string(root().join(DOCUMENT)).unwrap()).unwrap();
}
