//! Arbitrary bytes, and valid inputs with arbitrary damage, through everything that reads other people's files.

use proptest::prelude::*;

use super::trial;

/// A valid input and the trial it belongs to.
type Case = (fn(&[u8]), Vec<u8>);

fn cases() -> Vec<Case> {
    let digest = "a".repeat(64);
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"digest":"sha256:{digest}"}},"layers":[
        {{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:{digest}","size":5}},
        {{"mediaType":"application/vnd.ollama.image.projector","digest":"sha256:{}","size":5}}]}}"#,
        "b".repeat(64)
    );
    let index = br#"abcdefgh{"metadata":{"x":[1,{"y":null}]},"weight_map":{"a":"model-00001-of-00003.safetensors",
        "b":"model-00002-of-00003.safetensors"}}"#;
    let hub = b"rev\0rev\0model-00001-of-00002.safetensors\0../../blobs/0\0rev\0model-00002-of-00002.safetensors\0\
        ../../blobs/1\0old\0x.gguf\0../../../../secret.safetensors\0rev\0deep\0/watched/secret.safetensors";
    let names = b"m-00001-of-00003.gguf\0m-00002-of-00003.gguf\0frame_0001.png\0frame_0002.png\0a9b10.bin\0a9b9.bin";
    let pipeline = br#"{"_class_name":"X","unet":["diffusers","UNet"],"vae":["diffusers","VAE"],"none":[null,null]}"#;
    let pipeline = [
        pipeline.as_slice(),
        b"\0model.fp16-00001-of-00002.safetensors\0model.safetensors\0model.bin",
    ]
    .concat();
    vec![
        (trial::gguf_header as fn(&[u8]), trial::valid_gguf()),
        (trial::safetensors, index.to_vec()),
        (trial::ollama_manifest, manifest.into_bytes()),
        (trial::hub, hub.to_vec()),
        (trial::names, names.to_vec()),
        (trial::diffusers, pipeline),
    ]
}

/// One kind of damage, at a place given as a share of the length.
#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Cut(usize),
    Insert(usize, Vec<u8>),
    Repeat(usize, usize),
    Number(usize, u64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let huge = prop_oneof![Just(u64::MAX), Just(1 << 63), Just(1 << 40), Just(0), any::<u64>()];
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        any::<usize>().prop_map(Damage::Cut),
        (any::<usize>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<usize>(), 1..200usize).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (any::<usize>(), huge).prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: &usize, length: usize| if length == 0 { 0 } else { at % length };
    match damage {
        Damage::Set(at, byte) => {
            let at = place(at, bytes.len());
            bytes.iter_mut().skip(at).take(1).for_each(|old| *old = *byte);
        }
        Damage::Cut(at) => bytes.truncate(place(at, bytes.len())),
        Damage::Insert(at, new) => {
            let at = place(at, bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Damage::Repeat(at, length) => {
            let at = place(at, bytes.len());
            let again = bytes.iter().skip(at).take(*length).copied().collect::<Vec<_>>();
            bytes.extend(again);
        }
        Damage::Number(at, number) => {
            let at = place(at, bytes.len());
            bytes
                .iter_mut()
                .skip(at)
                .zip(number.to_le_bytes())
                .for_each(|(old, new)| *old = new);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_inputs_are_survived(case in 0..6usize, damages in prop::collection::vec(damage(), 1..6)) {
        let (trial, mut bytes) = cases().swap_remove(case);
        damages.iter().for_each(|damage| apply(&mut bytes, damage));
        trial(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        cases().into_iter().for_each(|(trial, _)| trial(&bytes));
    }
}

#[test]
fn undamaged_inputs_pass_the_same_trials() {
    cases().into_iter().for_each(|(trial, bytes)| trial(&bytes));
}

#[test]
fn every_seed_of_the_fuzz_targets_passes_its_trial() {
    let seeds = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds"));
    type Trial = fn(&[u8]);
    let trials: [(&str, Trial); 6] = [
        ("gguf_header", trial::gguf_header),
        ("safetensors", trial::safetensors),
        ("ollama_manifest", trial::ollama_manifest),
        ("hub", trial::hub),
        ("names", trial::names),
        ("diffusers", trial::diffusers),
    ];
    let targets = std::fs::read_dir(seeds).unwrap().count();
    assert_eq!(targets, trials.len(), "a target without its trial here");
    for (target, trial) in trials {
        for seed in std::fs::read_dir(seeds.join(target)).unwrap() {
            trial(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
