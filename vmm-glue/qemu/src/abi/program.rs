// SPDX-License-Identifier: GPL-2.0-or-later
//! The program of this process: its load address, its build id and its file; and its layout file.

use std::ffi::{c_int, c_void};
use std::path::{Path, PathBuf};

use nix::libc;
use qemu_layout::Table;

use super::refusal::Refusal;

/// The variable that names a layout file.
const VARIABLE: &str = "SVM_QEMU_LAYOUT";

/// Suffix of a layout file next to its program.
const BESIDE: &str = ".layout";

/// Prefixes of the names of QEMU's system emulators.
const NAMES: [&str; 2] = ["qemu-system-", "qemu-kvm"];

/// The type of a note with a build id, of the owner "GNU".
const NT_GNU_BUILD_ID: u32 = 3;

/// The program of this process.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The offset to add to the addresses in its file.
    pub bias: usize,
    /// Its build id in hexadecimal digits.
    pub build_id: Option<String>,
    /// Its file, unless it was replaced.
    path: Option<PathBuf>,
}

impl Program {
    /// Examines the process.
    pub fn of_this_process() -> Program {
        let mut program = Program::default();
        // SAFETY: the function is called for each loaded object with the given pointer.
        unsafe { libc::dl_iterate_phdr(Some(first_object), (&raw mut program).cast()) };
        program
    }

    /// Whether the program has the name of a QEMU system emulator.
    pub fn has_name_of_qemu(&self) -> bool {
        let name = self.path.as_deref().and_then(Path::file_name);
        name.is_some_and(|name| {
            let name = name.to_string_lossy();
            NAMES.iter().any(|begin| name.starts_with(begin))
        })
    }

    /// The table of the program's layout file; None if there is none.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or belongs to another program.
    pub fn layout_file(&self) -> Result<Option<Table>, Refusal> {
        let named = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        let path = match (named, &self.path) {
            (Some(path), _) => PathBuf::from(path),
            (None, Some(program)) => {
                let mut name = program.clone().into_os_string();
                name.push(BESIDE);
                let path = PathBuf::from(name);
                if !path.is_file() {
                    return Ok(None);
                }
                path
            }
            (None, None) => return Ok(None),
        };
        let refused = |reason: String| Refusal::LayoutFile {
            path: path.clone(),
            reason,
        };
        let text = std::fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
        let table: Table = text.parse().map_err(|error| refused(format!("{error}")))?;
        if table.build_id.is_none() || table.build_id != self.build_id {
            let say = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
            return Err(refused(format!(
                "it is of the build id {}, and this program has {}; make one for it by \
                 `svm-vm qemu-layout`",
                say(&table.build_id),
                say(&self.build_id)
            )));
        }
        let missing = qemu_layout::interface::missing(&table);
        if missing.is_empty() {
            Ok(Some(table))
        } else {
            Err(refused(format!(
                "it says nothing of {}",
                missing.join(", ")
            )))
        }
    }
}

/// Examines the first object, which is the program, and ends the iteration.
unsafe extern "C" fn first_object(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: the loader passes a description of an object, with its program headers, which stays
    // mapped; the pointer is that of `of_this_process`.
    let (program, bias, headers) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
        (
            &mut *data.cast::<Program>(),
            info.dlpi_addr as usize,
            headers,
        )
    };
    program.bias = bias;
    for header in headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
    {
        let begin = bias.wrapping_add(header.p_vaddr as usize) as *const u8;
        // SAFETY: a segment of notes is mapped with the program.
        let notes = unsafe { std::slice::from_raw_parts(begin, header.p_memsz as usize) };
        program.build_id = program.build_id.take().or_else(|| build_id(notes));
    }
    program.path = file_at(headers.as_ptr().addr());
    1
}

/// The build id in a segment of notes.
fn build_id(mut notes: &[u8]) -> Option<String> {
    const HEADER: usize = 12;
    while notes.len() >= HEADER {
        let word = |at: usize| -> Option<usize> {
            let bytes = notes.get(at..at + 4)?.try_into().ok()?;
            usize::try_from(u32::from_le_bytes(bytes)).ok()
        };
        let (name, description, kind) = (word(0)?, word(4)?, word(8)?);
        let begin = HEADER + name.next_multiple_of(4);
        let end = begin.checked_add(description)?;
        if kind == NT_GNU_BUILD_ID as usize && notes.get(HEADER..HEADER + name)? == b"GNU\0" {
            let id = notes.get(begin..end)?;
            return Some(id.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(end.next_multiple_of(4)..)?;
    }
    None
}

/// The file that is mapped at an address.
fn file_at(address: usize) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    mapped(&maps, address)
}

fn mapped(maps: &str, address: usize) -> Option<PathBuf> {
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (first, end) = range.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        if !(number(first)?..number(end)?).contains(&address) {
            return None;
        }
        let path = &rest[rest.find('/')?..];
        Some(PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_this_process_is_found() {
        let program = Program::of_this_process();
        assert_eq!(program.path, std::env::current_exe().ok());
        assert!(!program.has_name_of_qemu());
        assert!(program.layout_file().unwrap().is_none());
    }

    #[test]
    fn a_build_id_is_found_among_notes() {
        let note = |kind: u32, name: &[u8], id: &[u8]| {
            let mut bytes = Vec::new();
            for word in [name.len() as u32, id.len() as u32, kind] {
                bytes.extend(word.to_le_bytes());
            }
            for part in [name, id] {
                bytes.extend(part);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
            }
            bytes
        };
        let other = note(1, b"GNU\0", &[1, 2, 3, 4]);
        let notes = [other.clone(), note(3, b"GNU\0", &[0xa0, 1, 2])].concat();
        assert_eq!(build_id(&notes).as_deref(), Some("a00102"));
        assert_eq!(build_id(&other), None);
        assert_eq!(build_id(&notes[..20]), None);
    }

    #[test]
    fn a_mapped_file_may_have_blanks_in_its_name() {
        let maps = "1000-2000 r--p 00000000 fe:00 12   /a b/qemu-system-x86_64\n\
                    3000-4000 rw-p 00000000 00:00 0 \n";
        assert_eq!(mapped(maps, 0x1fff), Some("/a b/qemu-system-x86_64".into()));
        assert_eq!(mapped(maps, 0x2000), None);
        assert_eq!(mapped(maps, 0x3000), None);
    }
}
