// SPDX-License-Identifier: Apache-2.0
use super::*;
use clap::{Command, CommandFactory as _};
use std::{fs, path::Path};

fn words(command: &Command) -> Vec<String> {
    let mut all: Vec<_> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    all.sort();
    all
}

/// Every file below a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The command lines of ours that a text names: the words behind each `portcullis ` that begins a line or a code.
fn named(text: &str) -> Vec<Vec<&str>> {
    let starts = text
        .match_indices("portcullis ")
        .filter(|(at, _)| text[..*at].chars().next_back().is_none_or(|c| matches!(c, '`' | '>' | '\n' | '"' | ' ')));
    let lines = starts.map(|(at, word)| &text[at + word.len()..]);
    let is_word =
        |w: &&str| !w.is_empty() && !w.starts_with('-') && w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    lines
        .map(|l| l.split([' ', '`', '<', '\n', '"', ',', '.', ';', ')']).take_while(is_word).collect::<Vec<_>>())
        .filter(|words| !words.is_empty())
        .collect()
}

#[test]
fn every_command_that_a_page_or_the_readme_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut all = vec![root.join("README.md"), root.join("deploy/portcullis.example.toml")];
    files(&root.join("templates"), &mut all);
    let cli = Cli::command();
    let mut seen = 0;
    for file in all {
        let text = fs::read_to_string(&file).unwrap();
        for line in named(&text) {
            seen += 1;
            let mut command = &cli;
            for word in &line {
                if !command.has_subcommands() {
                    break;
                }
                command = command
                    .find_subcommand(word)
                    .unwrap_or_else(|| panic!("{}: there is no portcullis {}", file.display(), line.join(" ")));
            }
            assert!(!command.has_subcommands(), "{}: portcullis {} is not whole", file.display(), line.join(" "));
        }
    }
    assert!(seen > 6, "the texts name commands");
    assert_eq!(
        named("run `portcullis reload`.\nportcullis audit verify --json"),
        [vec!["reload"], vec!["audit", "verify"]]
    );
    assert!(named("/etc/portcullis/x portcullis.toml `portcullis --help`").is_empty());
}

#[test]
fn what_the_help_and_the_readme_list_is_what_there_is() {
    let cli = Cli::command();
    for group in cli.get_subcommands().filter(|c| c.has_subcommands()) {
        let about = group.get_about().unwrap().to_string();
        let (_, list) = about.rsplit_once(": ").unwrap_or_else(|| panic!("{about}: no list"));
        let mut listed: Vec<_> = list.split(", ").map(ToOwned::to_owned).collect();
        listed.sort();
        assert_eq!(listed, words(group), "{about}");
    }
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let (_, list) = readme.split_once("lists the verbs:").unwrap();
    let (list, rest) = list.split_once('.').unwrap();
    let mut listed: Vec<_> = list.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    listed.sort();
    assert_eq!(listed, words(&cli));
    assert!(rest.trim_start().starts_with("Each but `serve`"));
}

#[test]
fn every_verb_but_serve_takes_json() {
    fn check(command: &Command, name: &str) {
        for sub in command.get_subcommands() {
            let name = format!("{name} {}", sub.get_name());
            if sub.has_subcommands() {
                check(sub, &name);
            } else {
                let has = sub.get_arguments().any(|a| a.get_id() == "json");
                assert_eq!(has, name != "portcullis serve", "{name}");
            }
        }
    }
    check(&Cli::command(), "portcullis");
}
