//! The GPU that images are encoded on.

use super::Finding;
use crate::encoder::{self, Backend, Unavailable};

/// Whether there is a GPU where the configuration asks for one, or could use it. `precision` is that of
/// the bundle's image tower.
pub fn check(backend: Backend, precision: &str) -> Option<Finding> {
    judge(backend, precision, encoder::gpu)
}

fn judge(
    backend: Backend,
    precision: &str,
    gpu: impl FnOnce() -> Result<String, Unavailable>,
) -> Option<Finding> {
    let cpu = "model.backend = \"auto\" encodes on the CPU";
    match (backend, precision) {
        (Backend::Cpu, _) => return None,
        (_, "int8") => {}
        (Backend::Auto, _) => return None,
        (Backend::Cuda, _) => {
            let found = format!("the image tower is in {precision}, GPUs serve int8 transformers");
            return Some(Finding::fail("gpu", found, cpu));
        }
    }
    match (gpu(), backend) {
        (Ok(name), _) => Some(Finding::ok("gpu", name)),
        (Err(problem), Backend::Cuda) => Some(Finding::fail("gpu", problem.to_string(), cpu)),
        (Err(Unavailable::Absent(_)), _) => None,
        (Err(Unavailable::Unusable(reason)), _) => {
            let advice = "the CPU encodes; model.backend = \"cpu\" if that is meant";
            Some(Finding::warn("gpu", reason, advice))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Verdict;

    #[test]
    fn a_gpu_is_told_of_where_it_matters() {
        let there = || Ok("int8-cuda Orin, sm_87".to_owned());
        let absent = || Err(Unavailable::Absent("no NVIDIA driver".to_owned()));
        let broken = || Err(Unavailable::Unusable("no permission".to_owned()));
        let verdict = |finding: Option<Finding>| finding.map(|finding| finding.verdict);
        let (auto, cuda) = (Backend::Auto, Backend::Cuda);
        assert_eq!(judge(Backend::Cpu, "int8", || panic!("not asked")), None);
        assert_eq!(judge(auto, "f32", || panic!("not asked")), None);
        assert_eq!(verdict(judge(auto, "int8", there)), Some(Verdict::Ok));
        assert_eq!(verdict(judge(cuda, "int8", there)), Some(Verdict::Ok));
        assert_eq!(verdict(judge(auto, "int8", absent)), None);
        assert_eq!(verdict(judge(auto, "int8", broken)), Some(Verdict::Warn));
        assert_eq!(verdict(judge(cuda, "int8", absent)), Some(Verdict::Fail));
        assert_eq!(verdict(judge(cuda, "int8", broken)), Some(Verdict::Fail));
        let float = judge(cuda, "f32", || panic!("not asked")).unwrap();
        assert_eq!(float.verdict, Verdict::Fail);
        assert!(float.advice.unwrap().contains("auto"));
    }
}
