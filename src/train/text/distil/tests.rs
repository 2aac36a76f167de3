use super::*;

fn toy() -> Corpus {
    let (mut texts, mut tokens, mut targets) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..24_u32 {
        let class = usize::try_from(i % 3).ok();
        texts.push(Text {
            kind: "prompt".to_owned(),
            fine: class.into_iter().collect(),
            coarse: class.into_iter().collect(),
            imagenet: Vec::new(),
            text: format!("testo {i}"),
        });
        // The order of the two middle tokens decides, so that no bag of words can know it.
        let (a, b) = (4 + i % 6, 10 + i / 6);
        tokens.push(if i % 2 == 0 {
            vec![2, a, b, 3]
        } else {
            vec![2, b, a, 16, 3]
        });
        let mut target: Vec<f32> = (0..EMBEDDING_DIM)
            .map(|d| ((i * 37 + 11) as f32 * (d as f32 + 1.0) * 0.013).sin())
            .collect();
        let norm = target.iter().map(|v| v * v).sum::<f32>().sqrt();
        target.iter_mut().for_each(|v| *v /= norm);
        targets.extend(target);
    }
    Corpus {
        texts,
        tokens,
        targets,
        vocabulary: 20,
    }
}

#[test]
fn a_tiny_tower_learns_its_texts_by_heart() {
    let shape = Shape {
        vocabulary: 20,
        width: EMBEDDING_DIM,
        layers: 1,
        heads: 4,
        hidden: 64,
    };
    let settings = Settings {
        seed: 3,
        bag_epochs: 1,
        steps: 160,
        batch: 24,
        rate: 3e-3,
        ..Settings::default()
    };
    let corpus = toy();
    let mut checkpoints = 0;
    let tower = train(&corpus, shape, settings, |_, _| {
        checkpoints += 1;
        Ok(())
    })
    .unwrap();
    let rows: Vec<usize> = (0..24).collect();
    let (batch, target) = batch_of(&corpus, &rows).unwrap();
    let student = unit_rows(&tower.forward(&batch).unwrap()).unwrap();
    let cosine = 1.0
        - cosine_loss(&student, &target)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap();
    assert!(cosine > 0.9, "mean cosine {cosine}");
    assert_eq!(checkpoints, 1);
}

#[test]
fn the_same_seed_gives_the_same_order_and_all_texts_come() {
    let corpus = toy();
    let order = || plan(&corpus, &mut StdRng::seed_from_u64(5), 7);
    assert_eq!(order(), order());
    let mut seen: Vec<usize> = order().concat();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 24);
}
