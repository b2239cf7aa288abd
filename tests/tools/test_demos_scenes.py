"""What the demonstrations that join several networks claim: imaginet, attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_cases import assert_drawn, recorded, result, same

from rnnfast.demos import _demo, attention, imaginet
from rnnfast.training import cosine_distance, softmax_cross_entropy

# ----------------------------------------------------------------------------------------- imaginet


def world_and_model(seed: int = 0) -> tuple[imaginet.World, imaginet.Imaginet]:
    rng = np.random.default_rng(seed)
    return imaginet.World(rng), imaginet.Imaginet(rng)


def test_the_scenes_are_all_that_the_grammar_allows_each_once() -> None:
    world, _ = world_and_model()
    assert world.scenes.shape == (2048, 9)
    assert len(np.unique(world.scenes, axis=0)) == 2048
    texts = {" ".join(imaginet.WORDS[w] for w in scene) for scene in world.scenes}
    assert "a small red square above a big blue star" in texts
    assert sum(len(imaginet.SLOTS[slot]) for slot in imaginet.CHOSEN) == 22
    assert imaginet.ENTROPY.mean() == pytest.approx(np.log(2048) / 10)


def test_imaginet_is_tested_on_scenes_it_was_not_trained_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (call,), result = recorded("imaginet", monkeypatch)
    world, _ = world_and_model()
    test = {tuple(scene) for scene in world.scenes[world.test]}
    assert len(test) == imaginet.TEST
    trained = {tuple(scene) for words, _ in call.batches for scene in words.T}
    assert len(trained) > 800
    assert not trained & test
    assert len(call.batches) * call.options["epochs"] == 400
    assert call.figure is not None
    assert call.figure > 0.95, "untrained, it finds hardly any picture"
    assert not result.figures[0].reached


def test_a_picture_is_the_sum_of_what_its_properties_look_like_plus_noise() -> None:
    world, _ = world_and_model()
    rng = np.random.default_rng(1)
    scenes = np.repeat(world.scenes[[5, 700]], 4000, axis=0)
    pictures = world.pictures(scenes, rng).reshape(2, 4000, imaginet.PICTURE)
    for scene, rows in zip(world.scenes[[5, 700]], pictures, strict=True):
        chosen = [world.looks[slot, scene[slot]] for slot in imaginet.CHOSEN]
        np.testing.assert_allclose(rows.mean(axis=0), sum(chosen), atol=0.03)
        np.testing.assert_allclose(rows.std(axis=0), imaginet.NOISE, rtol=0.1)
    assert not world.looks[0].any(), "an article looks like nothing"
    assert (pictures[0, 0] != pictures[0, 1]).all()


def test_the_words_to_predict_are_one_ahead_of_those_read() -> None:
    words = np.arange(18).reshape(9, 2)
    read, told = imaginet.read(words), imaginet.told(words)
    np.testing.assert_array_equal(read[1:], told[:-1])
    assert {imaginet.WORDS[w] for w in read[0]} == {imaginet.GO}
    assert {imaginet.WORDS[w] for w in told[-1]} == {imaginet.END}


def test_imaginet_descends_the_loss_that_it_states() -> None:
    world, model = world_and_model()
    words, pictures = world.batch(np.random.default_rng(2))

    def loss() -> float:
        visual = cosine_distance(model.imagine(words), pictures)[0]
        return 0.3 * float(np.mean(model.word_losses(words))) + 0.7 * visual

    value, grads = model.loss_and_grads((words, pictures))
    assert value == pytest.approx(loss(), rel=1e-5)
    assert grads.keys() == model.params.keys()
    assert_slope(loss, model.params, grads)


def assert_slope(loss: Any, params: Any, grads: Any, eps: float = 1e-2) -> None:
    """Along each parameter's gradient the loss changes by the gradient's norm."""
    for name, p in params.items():
        norm = np.linalg.norm(grads[name])
        start, step = p.copy(), eps * grads[name] / norm
        p += step
        above = loss()
        p[...] = start - step
        below = loss()
        p[...] = start
        assert (above - below) / (2 * eps) == pytest.approx(norm, rel=2e-2), name


def test_the_right_picture_is_the_one_with_the_largest_cosine() -> None:
    rng = np.random.default_rng(0)
    rows, columns = rng.standard_normal((5, 3)), rng.standard_normal((7, 3))
    found = imaginet.cosines(rows, 100 * columns)
    for r, c in np.ndindex(5, 7):
        assert found[r, c] == pytest.approx(1 - cosine_distance(rows[r], columns[c])[0])


# ---------------------------------------------------------------------------------------- attention


@pytest.mark.slow
def test_attention_reaches_its_figures(tmp_path: Path) -> None:
    content = result("attention", tmp_path, "--seed", "1")
    assert content["reached"], content["figures"]
    assert content["seconds"] < 120


def test_attention_quick_learns_and_draws(tmp_path: Path) -> None:
    outcome = attention.demo.main(_demo.parse("attention", "", ["--quick"], attention.demo))
    histories = outcome.details["histories"]
    assert histories["with attention"]["loss"][-1] < histories["without attention"]["loss"][-1]
    assert len(outcome.details["exact_by_length"]["with attention"]) == 20
    assert_drawn(outcome, tmp_path / "plot.png")


def test_both_models_get_the_same_strings_and_steps_and_are_tested_on_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (without, with_), _ = recorded("attention", monkeypatch)
    assert without.model.attention is None
    assert with_.model.attention is not None
    assert same(without.batches[0], with_.batches[0])
    assert all(same(a, b) for a, b in zip(without.batches, with_.batches, strict=True))
    for option in ("epochs", "clip_norm"):
        assert without.options[option] == with_.options[option]
    assert without.rates == with_.rates
    assert [without.options["schedule"](e) for e in range(10)] == [
        with_.options["schedule"](e) for e in range(10)
    ]
    wider = {name for name, p in without.start.items() if p.shape != with_.start[name].shape}
    assert wider == {"mix.weight"}
    trained = {tuple(source) for batch in without.batches for source in batch}
    long = attention.strings(np.random.default_rng(9), 500, attention.LONG)
    assert {len(source) for source in long} == set(range(15, 21))
    assert not trained & {tuple(source) for source in long}


@pytest.mark.parametrize("attends", [False, True])
def test_the_translator_descends_the_loss_of_strings_taken_one_by_one(attends: bool) -> None:
    rng = np.random.default_rng(0)
    model = attention.Translator(attends, rng)
    sources = attention.strings(rng, 7)

    def loss() -> float:
        nll, count = 0.0, 0
        for source in sources:
            wanted = np.array([*source[::-1], attention.END])
            logits = alone(model, source, [attention.GO, *source[::-1]])
            nll += softmax_cross_entropy(logits, wanted)[0] * len(wanted)
            count += len(wanted)
        return nll / count

    value, grads = model.loss_and_grads(sources)
    assert value == pytest.approx(loss(), rel=1e-5)
    assert grads.keys() == model.params.keys()
    assert_slope(loss, model.params, grads)


def alone(model: attention.Translator, source: Any, told: Any) -> Any:
    """The logits after each symbol told to the decoder, for one string."""
    e, state = model.encoder(model.embedding(np.array(source)[:, None]))
    start = np.concatenate([state[0], state[1]], axis=1)[None]
    h, _ = model.decoder(model.embedding(np.array(told)[:, None]), start)
    seen = h[:, 0]
    if model.attention:
        a = np.exp(seen @ e[:, 0].T)
        seen = np.hstack([a / a.sum(axis=1, keepdims=True) @ e[:, 0], seen])
    return model.out(np.tanh(model.mix(seen)))


@pytest.mark.parametrize("attends", [False, True])
def test_the_translator_reads_what_it_wrote_itself(attends: bool) -> None:
    """Against decoding from the start at each step, of one string."""
    rng = np.random.default_rng(4)
    model = attention.Translator(attends, rng)
    for p in model.params.values():
        p *= 3  # weights whose symbols differ from step to step
    sources = attention.strings(rng, 20)
    answers, looks = model(sources)
    assert len({tuple(answer) for answer in answers}) > 5
    for source, answer in zip(sources, answers, strict=True):
        written = [attention.GO]
        while len(written) <= attention.LONGEST + 1 and written[-1] != attention.END:
            written.append(int(alone(model, source, written)[-1].argmax()))
        expected = written[1:-1] if written[-1] == attention.END else written[1:]
        assert answer == expected
    if attends:
        np.testing.assert_allclose(looks.sum(axis=2), 1, rtol=1e-5)
        shortest = int(np.argmin([len(source) for source in sources]))
        assert not looks[:, shortest, len(sources[shortest]) :].any()
    else:
        assert looks.size == 0


def test_exact_means_the_whole_string_turned_around(monkeypatch: pytest.MonkeyPatch) -> None:
    model = attention.Translator(True, np.random.default_rng(0))
    answers = [[3, 2, 1], [1, 2, 3], [3, 2], [3, 2, 1, 0], []]
    monkeypatch.setattr(attention.Translator, "__call__", lambda self, sources: (answers, None))
    sources = [np.array([1, 2, 3])] * 4 + [np.array([7])]
    exact = model.exact(sources)
    np.testing.assert_array_equal(exact, [True, False, False, False, False])


def test_shares_are_taken_length_by_length() -> None:
    sources = [np.zeros(n) for n in [*range(1, 21), 3, 3, 20]]
    exact = np.array([n in (3, 7) for n in range(1, 21)] + [True, False, True])
    shares = attention.by_length(exact, sources)
    expected = {3: 2 / 3, 7: 1.0, 20: 0.5}
    assert shares == pytest.approx([expected.get(n, 0.0) for n in range(1, 21)])
