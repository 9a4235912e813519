//! Tables, migrations, and the checks on opening a file.
