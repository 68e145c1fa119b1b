import random

import pytest
import torch

from scripts.demo_model.train_vae import batch, inside_psnr
from wan_core.config import VAEConfig
from wan_core.training.run import RunConfig, TrainingRun
from wan_core.training.vae import VAELoss, VAELossWeights, moments, new_vae, normalise_latents, reconstruct
from wan_core.vae import WanVAE
from wan_core.vae.losses import PatchDiscriminator, edge_loss, kl_to_normal, per_frame, weighted_l1

CONFIG = VAEConfig(dim=8, decoder_dim=8)


@pytest.fixture(scope="module")
def videos():
    return batch(random.Random(0), 2, 9, 32)[0]


def test_training_and_inference_run_the_same_network(videos):
    vae = new_vae(CONFIG, 0)
    usual = WanVAE(CONFIG)
    usual.load_state_dict(vae.state_dict())
    latents = usual.encode(videos)
    mean, _ = moments(vae, videos)
    torch.testing.assert_close(
        (mean - torch.tensor(CONFIG.mean).view(1, -1, 1, 1, 1)) / torch.tensor(CONFIG.std).view(1, -1, 1, 1, 1), latents
    )
    torch.testing.assert_close(reconstruct(vae, mean).clamp(-1, 1), usual.decode(latents), atol=1e-4, rtol=1e-4)


def test_the_decoder_is_trained_beyond_the_clamp(videos):
    vae = new_vae(CONFIG, 0)
    with torch.enable_grad():
        decoded = reconstruct(vae, 3 * moments(vae, videos)[0])
        (gradient,) = torch.autograd.grad(decoded.sum(), decoded.grad_fn and vae.decoder.head["2"].bias)
    assert decoded.abs().max() > 1 and gradient[0] == decoded[:, 0].numel()


@pytest.mark.slow
def test_colour_is_learned_within_a_minute(tmp_path):
    """One batch of single frames, overfitted; judged inside the objects."""
    video, cover = batch(random.Random(1), 4, 1, 32)
    vae, loss = new_vae(CONFIG, 0), VAELoss()
    run = TrainingRun(tmp_path, {"vae": vae}, RunConfig(steps=150, lr=3e-3, warmup=20))
    run.train(lambda step, generator: loss(vae, (video, 1 + 4 * cover), step, generator))
    assert inside_psnr(reconstruct(vae, moments(vae, video)[0]), video, cover) > 18


def test_normalised_latents_have_the_official_statistics(videos):
    vae = new_vae(CONFIG, 0)
    before = reconstruct(vae, moments(vae, videos)[0])
    normalise_latents(vae, lambda n: videos, 1)
    after = reconstruct(vae, moments(vae, videos)[0])
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    latents = vae.encode(videos)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 1e-4
    assert (latents.std((0, 2, 3, 4)) <= 1.001).all()  # less where the posterior is wide


def test_the_discriminator_joins_late(videos):
    vae, loss = new_vae(CONFIG, 0), VAELoss(VAELossWeights(gan_from=5))
    before = [p.clone() for p in loss.discriminator.parameters()]
    with torch.enable_grad():
        early = loss(vae, (videos, None), 4, torch.Generator().manual_seed(0))
        assert "gan" not in early and all(
            torch.equal(a, b) for a, b in zip(before, loss.discriminator.parameters(), strict=True)
        )
        late = loss(vae, (videos, None), 5, torch.Generator().manual_seed(0))
    assert "gan" in late and not torch.equal(before[0], next(loss.discriminator.parameters()))


def test_losses():
    target = torch.rand(2, 3, 5, 16, 16)
    assert weighted_l1(target + 0.5, target) == pytest.approx(0.5)
    assert edge_loss(target + 0.5, target) < 1e-6 < edge_loss(target * 2, target)
    zeros = torch.zeros(4)
    assert kl_to_normal(zeros, zeros) == 0 and kl_to_normal(zeros + 1, zeros) == 0.5
    corner = torch.zeros(2, 1, 5, 16, 16)
    corner[..., :4, :4] = 1
    assert weighted_l1(target + corner, target, corner) == pytest.approx(1)
    assert PatchDiscriminator(8)(target).shape == (10, 1, 2, 2)


def test_the_perceptual_term_is_any_callable(videos):
    """A metric of images sees every frame of both videos, in order; its mean is weighted into the loss."""
    seen = []

    def metric(prediction, target):
        seen.append((prediction, target))
        return torch.full((len(prediction), 1, 1, 1), 3.0)

    generator = torch.Generator().manual_seed(0)
    losses = VAELoss(VAELossWeights(kl=0.25, perceptual=2.0), per_frame(metric))(
        new_vae(CONFIG, 0), (videos, None), 0, generator
    )
    ((prediction, target),) = seen
    assert prediction.shape == target.shape == (18, 3, 32, 32)
    assert torch.equal(target[10], videos[1, :, 1])
    assert losses["perceptual"] == 3 and losses["loss"] == losses["l1"] + 0.25 * losses["kl"] + 2.0 * 3
    losses = VAELoss()(new_vae(CONFIG, 0), (videos, None), 0, torch.Generator().manual_seed(0))
    decoded = prediction.unflatten(0, (2, 9)).transpose(1, 2)
    assert torch.isclose(losses["perceptual"], edge_loss(decoded, videos), rtol=1e-6)  # sums in another order
