//! The pipeline file: any bytes are a pipeline, or an error of one line.

pub fn pipeline(data: &[u8]) {
    if let Err(error) = super::run::pipeline::parse(data) {
        assert!(!error.is_empty() && !error.contains('\n'), "{error:?}");
    }
}
