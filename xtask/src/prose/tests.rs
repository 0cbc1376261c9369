//! The rules on a few lines each, and the exceptions as a ratchet.

use super::*;

const SOME_RULES: &str = r#"
    headless_percent = 2
    [[word]]
    text = "for ever"
    reason = "literary"
    instead = "permanently"
    [[pattern]]
    name = "double genitive"
    regex = "of the [a-z]+'s[.,]"
    reason = "double genitive"
    instead = "a carrier response"
    [[pattern]]
    name = "half-width"
    regex = '\p{Han}\s?[,:;()]\s?\p{Han}'
    reason = "punctuation"
    instead = "full width"
    chinese = true
"#;

/// Line, rule and words of each hit.
fn hits(file: &str, paragraphs: &[Paragraph]) -> Vec<String> {
    let mut found = Found::default();
    found.add(file, paragraphs, &Rules::parse(SOME_RULES).unwrap(), None);
    found.hits.iter().map(|hit| format!("{} {}: {}", hit.line, hit.rule, hit.words)).collect()
}

fn in_rust(source: &str) -> Vec<String> {
    hits("proxy/src/a.rs", &rust::paragraphs("proxy/src/a.rs", source))
}

#[test]
fn words_are_found_in_comments_and_messages_and_across_lines() {
    assert_eq!(in_rust("//! Kept\n//! for\n//! ever.\n"), ["2 for ever: for ever"]);
    assert_eq!(in_rust("fn f() {} // For ever: a reply of the carrier's.\n").len(), 2);
    assert_eq!(in_rust("const A: &str = \"kept for \\\n    ever\";"), ["1 for ever: for ever"]);
    assert_eq!(in_rust("const A: &str = r#\"say \"for ever\"\"#;"), ["1 for ever: for ever"]);
    assert_eq!(in_rust("// forever is another word, and before everything"), [""; 0]);
}

#[test]
fn code_and_tests_are_not_read_for_messages() {
    assert_eq!(in_rust("/// `for ever`\n/// ```\n/// for ever\n/// ```\nfn f() {}"), [""; 0]);
    assert_eq!(
        in_rust("fn f() {}\n#[cfg(test)]\nmod tests {\n    const A: &str = \"for ever\";\n}"),
        [""; 0]
    );
    assert_eq!(
        in_rust("#[cfg(test)]\nmod tests {\n    // for ever\n}").len(),
        1,
        "comments of tests are read"
    );
}

#[test]
fn a_quote_in_a_comment_and_slashes_in_a_string_confuse_nothing() {
    assert_eq!(in_rust("// it's\nconst A: char = '\"'; // for ever\n"), ["2 for ever: for ever"]);
    assert_eq!(
        in_rust("const A: &str = \"http://for\"; fn f<'a>(x: &'a str) {} // for ever"),
        ["1 for ever: for ever"]
    );
    assert_eq!(in_rust("const A: (char, char) = ('\\'', '\\u{1F600}'); // for ever").len(), 1);
}

#[test]
fn documents_are_read_without_their_code() {
    let text = "# For ever\n\nFor\never `for ever`.\n\n```sh\nfor ever\n```\n";
    assert_eq!(hits("README.md", &text::markdown(text)), ["1 for ever: For ever", "3 for ever: For ever"]);
}

#[test]
fn the_chinese_document_has_rules_of_its_own() {
    let text = text::markdown("中国移动,物联卡:两种 (appid) for ever");
    assert_eq!(hits(CHINESE, &text), ["1 half-width: 动,物", "1 half-width: 卡:两"]);
    assert_eq!(hits("README.md", &text).len(), 1);
}

#[test]
fn a_paragraph_is_headless_when_its_first_line_opens_with_a_question_word() {
    for text in ["What the carrier said.", "Whose", "How it is\nWhat?"] {
        assert!(rules::is_headless(text), "{text}");
    }
    for text in ["Whether it is.", "What is a key?", "However", "The thing. What it is.", "Who's? "] {
        assert!(!rules::is_headless(text), "{text}");
    }
    let source = "//! How.\n//!\n//! A noun.\n\n/// What\n/// it is.\nfn f() {} // What it is\n";
    let mut found = Found::default();
    let rules = Rules::parse("headless_percent = 2").unwrap();
    found.add("a.rs", &rust::paragraphs("a.rs", source), &rules, Some("tests"));
    assert_eq!((found.measure["tests"], found.hits.len()), ((2, 3), 2));
}

#[test]
fn counts_fall_and_move_but_never_rise() {
    let counts = |text: &str| {
        let mut counts = Counts::new();
        for part in text.split_whitespace().map(|part| part.split('/').collect::<Vec<_>>()) {
            counts
                .entry(part[0].to_owned())
                .or_default()
                .insert(part[1].to_owned(), part[2].parse().unwrap());
        }
        counts
    };
    let allowed = Exceptions::parse("# comment\na.rs: for ever 2, told 1\nb.rs: told 3\n").unwrap();
    assert_eq!(allowed.exceeded_by(&counts("a.rs/told/1 b.rs/told/2")), []);
    let exceeded = allowed.exceeded_by(&counts("a.rs/told/2 c.rs/told/1"));
    assert_eq!(exceeded, [("a.rs".to_owned(), "told".to_owned()), ("c.rs".to_owned(), "told".to_owned())]);
    assert!(allowed.lowered_to(&counts("c.rs/told/4")).is_ok(), "text moved to another file");
    assert!(allowed.lowered_to(&counts("a.rs/told/5")).is_err());
    assert!(allowed.lowered_to(&counts("a.rs/begun/1")).is_err());
    let written = exceptions::text(&counts("a.rs/told/1 b.rs/told/3"));
    assert!(written.ends_with("a.rs: told 1\nb.rs: told 3\n"), "{written}");
    assert!(Exceptions::parse("a.rs told").is_err() && Exceptions::parse("a.rs: told").is_err());
}

#[test]
fn the_rules_of_the_project_can_be_read() {
    Rules::parse(&fs::read_to_string(root().join(RULES)).unwrap()).unwrap();
    Exceptions::read(EXCEPTIONS).unwrap();
    assert!(
        Rules::parse("headless_percent = 2\n[[word]]\ntext = \"a\"\nreason = \"\"").is_err(),
        "a rule without its alternative"
    );
}
