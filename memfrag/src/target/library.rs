//! The libraries that a command will load, and the allocator libraries that the machine has.

use super::command::CommandError;
use super::elf::Image;
use super::file::MappedFile;
use super::loader_cache::{self, Entry};
use std::collections::{HashSet, VecDeque};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What decides where the loader looks, besides the files themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The entries of `LD_LIBRARY_PATH`.
    pub library_path: Vec<PathBuf>,
    /// The entries of `LD_PRELOAD`, then those of the machine's own list.
    pub preload: Vec<String>,
}

impl Environment {
    /// Takes it from the values of the variables `LD_LIBRARY_PATH` and `LD_PRELOAD` and the text of
    /// `/etc/ld.so.preload`.
    pub fn new(library_path: Option<&OsStr>, preload: Option<&OsStr>, machine: &str) -> Self {
        let library_path = library_path.map(directories).unwrap_or_default();
        let preload = format!("{} {machine}", preload.unwrap_or_default().to_string_lossy());
        let preload = preload.split([' ', ':', '\n', '\t']).filter(|name| !name.is_empty());
        Self { library_path, preload: preload.map(str::to_owned).collect() }
    }

    /// That of this process, which a command inherits.
    pub fn own() -> Self {
        let machine = fs::read_to_string("/etc/ld.so.preload").unwrap_or_default();
        let variable = |name| std::env::var_os(name);
        Self::new(variable("LD_LIBRARY_PATH").as_deref(), variable("LD_PRELOAD").as_deref(), &machine)
    }
}

/// Directories separated by colons or semicolons; an empty one is the current directory.
fn directories(list: &OsStr) -> Vec<PathBuf> {
    if list.is_empty() {
        return Vec::new();
    }
    let entries = list.as_bytes().split(|byte| matches!(byte, b':' | b';'));
    entries.map(|entry| Path::new(OsStr::from_bytes(if entry.is_empty() { b"." } else { entry })).to_owned()).collect()
}

/// Where the loaders of glibc look when nothing else says, in the layouts of Debian and of others.
const DIRECTORIES: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
];

/// Where musl's loader looks when its own configuration does not say.
const MUSL_DIRECTORIES: &[&str] = &["/lib", "/usr/local/lib", "/usr/lib"];

/// Looks for libraries as the loader will.
#[derive(Debug, Default)]
pub struct Loader {
    environment: Environment,
    cache: Vec<Entry>,
}

/// A file that a program loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its path.
    pub path: PathBuf,
    /// Its device and inode.
    pub identity: (u64, u64),
}

/// What a program will have loaded when it begins, as far as its files tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closure {
    /// The program, what is preloaded, and what each needs, in the order in which symbols are searched.
    pub files: Vec<Loaded>,
    /// Libraries that could not be found or read; the program will not start without them, unless they are preloads.
    pub missing: Vec<String>,
}

impl Loader {
    /// A loader of this machine with an environment of its own.
    pub fn new(environment: Environment) -> Self {
        Self { environment, cache: loader_cache::read_machine() }
    }

    /// A loader that knows these libraries besides the standard directories.
    pub fn with_cache(environment: Environment, cache: Vec<Entry>) -> Self {
        Self { environment, cache }
    }

    /// Everything that `program` will load. A static program loads itself alone.
    ///
    /// # Errors
    /// When the program cannot be read; that of libraries is noted in the result.
    pub fn closure(&self, program: &Path) -> Result<Closure, CommandError> {
        let unreadable = |source| CommandError::Unreadable { path: program.to_owned(), source };
        let identity = identity(program).map_err(unreadable)?;
        let file = MappedFile::open(program).map_err(unreadable)?;
        let mut closure = Closure { files: vec![Loaded { path: program.to_owned(), identity }], missing: Vec::new() };
        // What is no ELF file is for other loaders of the kernel to run.
        let Ok(image) = Image::parse(&file) else { return Ok(closure) };
        let Some(interpreter) = image.interpreter.clone() else { return Ok(closure) };
        let search = Search::of(&image, program);
        let mut pending: VecDeque<(String, Search)> = VecDeque::new();
        pending.extend(self.environment.preload.iter().map(|name| (name.clone(), Search::default())));
        pending.extend(image.needed.iter().map(|name| (name.clone(), search.clone())));
        let mut names = HashSet::new();
        while let Some((name, from)) = pending.pop_front() {
            if !names.insert(name.clone()) {
                continue;
            }
            let inherited = &search.rpath;
            let Some((path, file)) = self.find(&name, &from, inherited, &interpreter) else {
                closure.missing.push(name);
                continue;
            };
            let Ok(identity) = self::identity(&path) else { continue };
            if closure.files.iter().any(|known| known.identity == identity) {
                continue;
            }
            if let Ok(image) = Image::parse(&file) {
                let search = Search::of(&image, &path);
                pending.extend(image.needed.iter().map(|name| (name.clone(), search.clone())));
            }
            closure.files.push(Loaded { path, identity });
        }
        Ok(closure)
    }

    /// The file that a name leads to: the first for this processor.
    fn find(
        &self,
        name: &str,
        from: &Search,
        inherited: &[PathBuf],
        interpreter: &str,
    ) -> Option<(PathBuf, MappedFile)> {
        let fits = |path: PathBuf| {
            let file = MappedFile::open(&path).ok()?;
            Image::parse(&file).is_ok().then_some((path, file))
        };
        if name.contains('/') {
            return fits(PathBuf::from(name));
        }
        let is_musl = interpreter.contains("ld-musl-");
        if is_musl && (name.starts_with("libc.musl-") || name == "libc.so") {
            return fits(PathBuf::from(interpreter));
        }
        // An object with a run path ignores the older kind, its own and the program's.
        let older = if from.runpath.is_empty() { [&from.rpath[..], inherited].concat() } else { Vec::new() };
        let named = older.iter().chain(&self.environment.library_path).chain(&from.runpath);
        if let Some(found) = named.map(|directory| directory.join(name)).find_map(fits) {
            return Some(found);
        }
        if is_musl {
            let configured = fs::read_to_string("/etc/ld-musl-x86_64.path").unwrap_or_default();
            let configured = configured.split([':', '\n']).filter(|directory| !directory.is_empty());
            let mut directories: Vec<&str> = configured.collect();
            if directories.is_empty() {
                directories.extend(MUSL_DIRECTORIES);
            }
            return directories.into_iter().map(|directory| Path::new(directory).join(name)).find_map(fits);
        }
        let cached = self.cache.iter().filter(|entry| entry.name == name);
        let cached = cached.clone().filter(|entry| !entry.is_special).chain(cached.filter(|entry| entry.is_special));
        let standard = DIRECTORIES.iter().map(|directory| Path::new(directory).join(name));
        cached.map(|entry| entry.path.clone()).chain(standard).find_map(fits)
    }

    /// Every file of the machine that is known as an allocator by its name, each once: what the children of a command
    /// may come to use.
    pub fn known_allocators(&self) -> Vec<Loaded> {
        let mut paths: Vec<PathBuf> = self.cache.iter().map(|entry| entry.path.clone()).collect();
        for directory in DIRECTORIES {
            let Ok(entries) = fs::read_dir(directory) else { continue };
            paths.extend(entries.flatten().map(|entry| entry.path()));
        }
        let is_allocator = |path: &PathBuf| path.file_name().is_some_and(|name| is_allocator(&name.to_string_lossy()));
        let mut found: Vec<Loaded> = Vec::new();
        for path in paths.into_iter().filter(is_allocator) {
            let Ok(identity) = identity(&path) else { continue };
            if !found.iter().any(|known| known.identity == identity) {
                found.push(Loaded { path, identity });
            }
        }
        found
    }
}

/// Where an object wants its libraries to be looked for.
#[derive(Clone, Debug, Default)]
struct Search {
    rpath: Vec<PathBuf>,
    runpath: Vec<PathBuf>,
}

impl Search {
    fn of(image: &Image<'_>, path: &Path) -> Self {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let origin = path.parent().map(|origin| origin.to_string_lossy().into_owned()).unwrap_or_default();
        let expand = |list: &Option<String>| {
            let list = list.as_deref().unwrap_or_default();
            let mut text = list.to_owned();
            for (token, value) in [("ORIGIN", origin.as_str()), ("LIB", "lib/x86_64-linux-gnu"), ("PLATFORM", "x86_64")]
            {
                text = text.replace(&format!("${{{token}}}"), value).replace(&format!("${token}"), value);
            }
            directories(OsStr::new(&text))
        };
        Self { rpath: expand(&image.rpath), runpath: expand(&image.runpath) }
    }
}

/// Whether a library is known as an allocator, or as a C library, by its file's name.
fn is_allocator(name: &str) -> bool {
    // The loaders of musl are its C library; so is `libc.musl-…`. Debian's musl links `libc.so` to its loader.
    let starts = ["libjemalloc", "libtcmalloc", "libmimalloc", "ld-musl-", "libc.musl-"];
    let is_shared = name.ends_with(".so") || name.contains(".so.");
    name == "libc.so.6" || (is_shared && starts.iter().any(|start| name.starts_with(start)))
}

/// A file's device and inode.
fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_real_program_loads_what_ldd_says() {
        let program = Path::new("/bin/sh");
        let Ok(output) = Command::new("ldd").arg(program).output() else {
            eprintln!("skipped: there is no ldd here");
            return;
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let expected: HashSet<_> =
            text.lines().filter_map(|line| identity(Path::new(line.split_whitespace().nth(2)?)).ok()).collect();
        let closure = Loader::new(Environment::default()).closure(program).expect("sh can be read");
        let found: HashSet<_> = closure.files.iter().skip(1).map(|file| file.identity).collect();
        assert!(expected.is_subset(&found) && !expected.is_empty(), "{text}\n{closure:?}");
        assert_eq!(closure.missing, Vec::<String>::new());
        assert_eq!(closure.files[0].identity, identity(program).expect("it is there"));
    }

    #[test]
    fn preloads_come_before_needed_libraries() {
        let loader = Loader::new(Environment::default());
        let Some(other) = loader.known_allocators().into_iter().find(|file| {
            file.path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libjemalloc.so"))
        }) else {
            eprintln!("skipped: jemalloc is not installed here");
            return;
        };
        let preload = format!("{}:libnot-there.so", other.path.display());
        let environment = Environment::new(None, Some(OsStr::new(&preload)), "");
        let closure = Loader::new(environment).closure(Path::new("/bin/sh")).expect("sh can be read");
        assert_eq!(closure.files[1].identity, other.identity);
        assert_eq!(closure.missing, ["libnot-there.so"]);
    }

    #[test]
    fn the_machines_c_library_is_known_once() {
        let known = Loader::new(Environment::default()).known_allocators();
        let identities: HashSet<_> = known.iter().map(|file| file.identity).collect();
        assert_eq!(identities.len(), known.len(), "each file once: {known:?}");
        assert!(
            known.iter().any(|file| file.path.ends_with("libc.so.6") || file.path.to_string_lossy().contains("musl"))
        );
    }

    #[test]
    fn run_paths_are_honoured() {
        if Command::new("cc").arg("--version").output().is_err() {
            eprintln!("skipped: there is no C compiler here");
            return;
        }
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = directory.path();
        fs::write(at.join("l.c"), "int f(void) { return 1; }").expect("it is writable");
        fs::write(at.join("p.c"), "int f(void); int main(void) { return f(); }").expect("it is writable");
        let compile = |arguments: &[&str]| {
            let status = Command::new("cc").current_dir(at).args(arguments).status().expect("cc runs");
            assert!(status.success());
        };
        fs::create_dir(at.join("sub")).expect("it is writable");
        compile(&["-shared", "-fPIC", "-o", "sub/libf.so", "l.c"]);
        for tags in ["--enable-new-dtags", "--disable-new-dtags"] {
            compile(&["-o", "p", "p.c", "-Lsub", "-lf", &format!("-Wl,{tags},-rpath,$ORIGIN/sub")]);
            let closure = Loader::new(Environment::default()).closure(&at.join("p")).expect("it can be read");
            assert_eq!(closure.files[1].identity, identity(&at.join("sub/libf.so")).expect("it was made"));
        }
        compile(&["-o", "p", "p.c", "-Lsub", "-lf"]);
        let closure = Loader::new(Environment::default()).closure(&at.join("p")).expect("it can be read");
        assert_eq!(closure.missing, ["libf.so"]);
        let environment = Environment::new(Some(at.join("sub").as_os_str()), None, "");
        let closure = Loader::new(environment).closure(&at.join("p")).expect("it can be read");
        assert_eq!(closure.missing, Vec::<String>::new());
        compile(&["-static", "-o", "s", "-x", "c", "l.c", "-Dmain=main", "-DX", "-nostdlib", "-Wl,-e,f"]);
        let closure = Loader::new(Environment::default()).closure(&at.join("s")).expect("it can be read");
        assert_eq!(closure.files.len(), 1, "a static program loads nothing");
    }

    #[test]
    fn names_are_told_apart() {
        for name in
            ["libc.so.6", "libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so", "ld-musl-x86_64.so.1"]
        {
            assert!(is_allocator(name), "{name}");
        }
        for name in ["libc.so", "libc++.so.1", "libjemalloc.a", "libjemalloc_pic.a", "jemalloc.so"] {
            assert!(!is_allocator(name), "{name}");
        }
    }
}
