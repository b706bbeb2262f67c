//! What files and processes of a trace are called, as far as its records tell.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use super::Record;
use crate::{
    catalog::model::{Description, Model},
    engine::input::Input,
    units::FileId,
};

/// Names, by what they belong to.
#[derive(Debug, Default)]
pub struct Names {
    files: HashMap<FileId, Known>,
    programs: HashMap<u32, String>,
}

/// What is known of a file.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its path.
    pub path: PathBuf,
    /// Bytes, when it was looked at last.
    pub size: u64,
    /// The model it is part of.
    pub model: Option<Arc<Model>>,
}

impl Names {
    /// Takes what a record tells.
    pub fn learn(&mut self, record: &Record) {
        match record {
            Record::Input { input, .. } => match input {
                Input::Described {
                    description: Some(description),
                    ..
                }
                | Input::Named { description, .. } => self.describe(description),
                Input::Program { process, name, .. } => {
                    self.programs.insert(*process, name.clone());
                }
                _ => {}
            },
            Record::Process { process, name, .. } => {
                self.programs.entry(*process).or_insert_with(|| name.clone());
            }
            Record::File { file, path, size, .. } => {
                self.files.entry(*file).or_insert_with(|| Known {
                    path: path.clone(),
                    size: *size,
                    model: None,
                });
            }
            _ => {}
        }
    }

    fn describe(&mut self, description: &Description) {
        for part in &description.model.parts {
            let known = Known {
                path: part.place.root.join(&part.place.below),
                size: part.size,
                model: Some(description.model.clone()),
            };
            self.files.insert(part.file, known);
        }
    }

    /// What is known of a file.
    pub fn file(&self, file: FileId) -> Option<&Known> {
        self.files.get(&file)
    }

    /// The path of a file, or its numbers; bytes that are not UTF-8 are replaced.
    pub fn path(&self, file: FileId) -> String {
        match self.files.get(&file) {
            Some(known) => known.path.to_string_lossy().into_owned(),
            None => format!(
                "device {}:{} inode {}",
                file.device >> 20,
                file.device & 0xf_ffff,
                file.inode
            ),
        }
    }

    /// The program of a process.
    pub fn program(&self, process: u32) -> Option<&str> {
        self.programs.get(&process).map(String::as_str)
    }
}
