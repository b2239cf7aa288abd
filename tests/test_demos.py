"""The demonstrations reach their figures; what they are built of does what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfast import num_threads
from rnnfast.demos import DEMOS, _demo, load, run
from rnnfast.demos._ngram import ngram_bits
from rnnfast.demos._torch import torch_adder, torch_language_model
from rnnfast.demos.binary_adder import BATCH, Adder, sums
from rnnfast.demos.char_lm import RARE, UNKNOWN, Alphabet, LanguageModel
from rnnfast.demos.count_ones import Counter
from rnnfast.demos.lstm_vs_gru import recall
from rnnfast.demos.sentiment import GOOD, OPENERS, WORDS, Grammar, Reader
from rnnfast.demos.seq2seq import LONGEST, Translator, is_held_out, strings
from rnnfast.demos.tagger import FIRST_END, NO, Tagger, texts
from rnnfast.training import Adam, gradcheck, join

NAMES = [name for name in DEMOS if name != "all"]
SHORT = [name for name in NAMES if name != "char-lm"]  # which takes a minute


def result(name: str, tmp_path: Path, *argv: str) -> dict[str, Any]:
    """Run a demonstration; the content of its JSON, plus `status`."""
    path = tmp_path / "result.json"
    status = run(name, ["--json", str(path), *argv])
    content: dict[str, Any] = json.loads(path.read_text())
    assert content["name"] == name
    assert content["reached"] == all(figure["reached"] for figure in content["figures"])
    return content | {"status": status}


def values(content: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in content["figures"]}


# ----------------------------------------------------------------------- the figures themselves


@pytest.mark.parametrize("name", SHORT)
def test_reaches_its_figures_and_draws_them(name: str, tmp_path: Path) -> None:
    options = _demo.parse(name, "", ["--seed", "1"], load(name))
    with num_threads(1):
        outcome = load(name).main(options)
    assert all(figure.reached for figure in outcome.figures), outcome.figures
    assert outcome.figures
    json.dumps(outcome.details)
    pytest.importorskip("matplotlib", reason="plots are an extra")
    figure = outcome.plot()
    figure.savefig(tmp_path / "plot.png", dpi=100)
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    for axes in figure.axes:
        assert axes.get_ylabel()
        assert axes.get_xlabel() or axes.get_label() == "<colorbar>"


@pytest.mark.slow
def test_char_lm_reaches_its_figures(tmp_path: Path) -> None:
    content = result("char-lm", tmp_path, "--seed", "1")
    assert content["reached"], content["figures"]
    assert values(content)["held-out bits per character (3-gram)"] < 2.3
    assert content["seconds"] < 120


def test_next_symbol_from_any_start(tmp_path: Path) -> None:
    first, second = (values(result("next-symbol", tmp_path, "--seed", s)) for s in ("2", "3"))
    assert first != second  # the weights did start elsewhere
    assert first == pytest.approx(second, abs=0.03)


def test_char_lm_quick(tmp_path: Path) -> None:
    content = result("char-lm", tmp_path, "--quick")
    first, _, last = content["history"]["held_out"]
    assert last < first < np.log2(100)
    assert content["baseline_bits"] > 2
    assert content["tokens_per_second"] > 0
    assert len(content["sample"]) == len("\ndef ") + 400
    assert content["sample"].startswith("\ndef ")


def test_char_lm_of_a_file_beats_the_3_gram_model_where_memory_pays(tmp_path: Path) -> None:
    """Lines of one repeated letter and their length: only the state can tell where one ends."""
    rng = np.random.default_rng(0)
    lines = ["ab"[rng.integers(2)] * 7 for _ in range(6000)]
    path = tmp_path / "text"
    path.write_text("\n".join(lines))
    content = result("char-lm", tmp_path, "--quick", "--text", str(path))
    bits = content["history"]["held_out"][-1]
    assert content["baseline_bits"] > 0.45
    assert bits < 0.4
    assert set(content["sample"][5:]) <= {"a", "b", "\n"}


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("binary-adder", ["2 x 20 LSTM, batch 64, 8 steps"]),
        (
            "char-lm",
            ["2 x 192 GRU, batch 16, 64 steps", "2 x 256 LSTM, batch 32, 64 steps"],
        ),
    ],
)
def test_compare_torch_is_of_the_same_model(
    name: str, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is only compared with")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    content = result(name, tmp_path, "--quick", "--compare", "torch", "--dropout", "0")
    out = capsys.readouterr().out
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)
    measured = {models[0]: content}
    if len(models) == 2:
        measured[models[1]] = content["larger_lstm"]
    for model, times in measured.items():
        ours, theirs = times["first_losses"]
        assert ours == pytest.approx(theirs, rel=1e-5)
        seconds = times["torch_seconds_per_step"], times["rnnfast_seconds_per_step"]
        assert min(seconds) > 0
        assert times["speed_up"] == pytest.approx(seconds[0] / seconds[1])
        assert f"{model}, PyTorch {torch.__version__}: " in out


def test_torch_takes_the_same_training_steps() -> None:
    """Losses stay together over optimiser, clipping and carried state."""
    pytest.importorskip("torch", reason="PyTorch is only compared with")
    rng = np.random.default_rng(0)
    adder, model = Adder(0.0, rng), LanguageModel(40, 0.0, rng)
    batches = [sums(rng, BATCH) for _ in range(5)]
    pieces = list(islice(model.windows(rng.integers(0, 40, 10_000)), 5))
    for ours, theirs, data in [
        (
            _demo.steps(adder.loss_and_grads, Adam(adder.params, lr=0.01)),
            torch_adder(adder, 0.01),
            batches,
        ),
        (
            _demo.steps(model.loss_and_grads, Adam(model.params, lr=0.01), clip_norm=0.1),
            torch_language_model(model, 0.01, 0.1),
            pieces,
        ),
    ]:
        tensors = [tuple(map(torch_tensor, batch)) for batch in data]
        losses = [ours([batch])[0] for batch in data]
        assert losses == pytest.approx(theirs(tensors), rel=1e-4)
        assert abs(losses[-1] - losses[0]) > 1e-3 * losses[0]


def torch_tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def test_compare_without_torch_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit):
        run("char-lm", ["--compare", "torch"])
    assert "argument --compare: needs PyTorch, pip install torch" in capsys.readouterr().err


# ------------------------------------------------------------------------------- running them


def test_json_plot_and_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    plot = tmp_path / "plot.png"
    content = result("count-ones", tmp_path, "--quick", "--plot", str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    for figure in content["figures"]:
        assert figure["name"] in out
        assert figure["goal"] in out
    assert "NOT REACHED" not in out


def test_status_1_and_a_mark_where_a_figure_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = _demo.Demo(lambda options: _demo.Result([_demo.at_least("x", 0.5, 1)], lambda: None))
    monkeypatch.setattr("rnnfast.demos.load", lambda name: missed)
    assert result("count-ones", tmp_path)["status"] == 1
    assert "NOT REACHED" in capsys.readouterr().out
    assert result("count-ones", tmp_path, "--quick")["status"] == 0
    out = capsys.readouterr().out
    assert "NOT REACHED" in out
    assert out.endswith(" s, a quick run, short of the goals\n\n")


def test_a_quick_run_is_not_short_of_goals_that_it_reaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As every demonstration does that has nothing to leave out."""
    assert result("count-ones", tmp_path, "--quick")["reached"]
    assert capsys.readouterr().out.endswith(" s, a quick run\n\n")


def test_json_on_standard_output_stands_there_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reached = _demo.Demo(lambda options: _demo.Result([_demo.at_least("x", 2, 1)], lambda: None))
    monkeypatch.setattr("rnnfast.demos.load", lambda name: reached)
    assert run("count-ones", ["--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["figures"][0]["value"] == 2
    assert "should be" in err
    assert run("all", ["--json", "-"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)] == NAMES


def test_all_has_a_help_of_its_own_and_takes_a_folder_for_plots(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        run("all", ["--help"])
    assert raised.value.code == 0
    assert capsys.readouterr().out.startswith("usage: rnnfast demo all ")
    (tmp_path / "plots").write_text("a file")
    for name, reason in (("all", "it is no directory"), ("count-ones", "it is a directory")):
        pytest.importorskip("matplotlib", reason="plots are an extra")
        with pytest.raises(SystemExit):
            run(name, ["--plot", str(tmp_path / "plots" if name == "all" else tmp_path)])
        assert f"argument --plot: {reason}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seed", "x"], "argument --seed: invalid int value"),
        (["--seed", "-1"], "argument --seed: -1 is negative"),
        (["--threads", "0"], "argument --threads: 0 is not from 1 to 256"),
        (["--json", "/no/such/folder/x"], "argument --json: there is no directory /no/such/folder"),
        (["--json", "/"], "argument --json: it is a directory"),
        (["--text", "/no/such/file"], "argument --text: [Errno 2]"),
        (["--text", __file__], "characters, expected at least 20,000"),
        (["--compare", "jax"], "argument --compare: 'jax' is not torch"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--sed", "3"], "unrecognized arguments: --sed 3 (did you mean --seed?)"),
        (["x"], "unrecognized arguments: x"),
    ],
)
def test_wrong_arguments(argv: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        run("char-lm", argv)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="name is 'nonsense', expected one of next-symbol"):
        run("nonsense")


def test_plot_without_matplotlib_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit):
        run("char-lm", ["--plot", str(tmp_path / "plot.png")])
    assert "pip install rnnfast[plot]" in capsys.readouterr().err


def test_ctrl_c_ends_a_demonstration_cleanly() -> None:
    code = "from rnnfast.demos import run; run('seq2seq', [])"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        # Under a shell's `&` SIGINT is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    seen = b""
    while b"epoch 1" not in seen:  # training has begun
        seen += os.read(process.stderr.fileno(), 1000)
    sent = time.perf_counter()
    process.send_signal(signal.SIGINT)
    threading.Thread(target=process.stderr.read, daemon=True).start()
    process.wait(timeout=10)
    assert time.perf_counter() - sent < 1.0  # the interpreter's own shutdown included
    assert process.returncode == -signal.SIGINT


@pytest.mark.slow
def test_all_quick(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots are an extra")
    path, plots = tmp_path / "all.json", tmp_path / "plots"
    assert run("all", ["--quick", "--json", str(path), "--plot", str(plots)]) == 0
    assert [content["name"] for content in json.loads(path.read_text())] == NAMES
    assert sorted(plot.stem for plot in plots.iterdir()) == sorted(NAMES)


# --------------------------------------------------------------------- what they are made of


def test_ngram_bits_are_those_of_the_formula() -> None:
    """Against a direct, slow transcription with dicts."""
    rng = np.random.default_rng(0)
    training, test = rng.integers(0, 4, 300), rng.integers(0, 5, 50)  # 4 is never seen

    def p(n: int, history: tuple[int, ...], w: int) -> float:
        if n == 0:
            return 1 / 5
        context = history[len(history) - (n - 1) :]
        places = [i for i in range(2, 300) if tuple(training[i - n + 1 : i]) == context]
        followers = [int(training[i]) for i in places]
        below = p(n - 1, history, w)
        if not followers:
            return below
        kinds = len(set(followers))
        return (followers.count(w) + kinds * below) / (len(followers) + kinds)

    bits = [-np.log2(p(3, (int(test[i - 2]), int(test[i - 1])), test[i])) for i in range(2, 50)]
    assert ngram_bits(training, test, order=3) == pytest.approx(np.mean(bits), rel=1e-12)
    total = sum(p(3, (1, 2), w) for w in range(5))
    assert total == pytest.approx(1)


def test_alphabet() -> None:
    text = "ab\u00e9\U0001f600" * RARE + "z"
    alphabet = Alphabet(text)
    assert alphabet.size == 5
    decoded = alphabet.decode(alphabet.encode("ba\u00e9\U0001f600zA\uffff\x00"))
    assert decoded == "ba\u00e9\U0001f600" + 4 * UNKNOWN


def test_sums() -> None:
    numbers, x, target = sums(np.random.default_rng(0), 50)
    powers = 2 ** np.arange(8)
    np.testing.assert_array_equal(np.einsum("tbi,t->ib", x, powers), numbers)
    np.testing.assert_array_equal(np.einsum("tbi,t->b", target, powers), numbers.sum(axis=0))
    assert numbers.max() < 128


def test_twins_have_the_same_words_other_labels_and_unseen_pairs() -> None:
    grammar = Grammar(np.random.default_rng(0))
    training, twins = grammar.training(500), grammar.twins(200)
    for (first, one), (second, two) in zip(twins[::2], twins[1::2], strict=True):
        assert sorted(first) == sorted(second)
        assert {one, two} == {0, 1}
    assert {label for _, label in training} == {0, 1}
    assert not {tuple(words) for words, _ in training} & {tuple(words) for words, _ in twins}
    adjectives = {WORDS.index(word) for pair in grammar.held_out for word in pair}

    def pair(words: list[int]) -> frozenset[str]:
        return frozenset(WORDS[w] for w in words if w in adjectives)

    assert all(pair(words) in grammar.held_out for words, _ in twins)
    assert not any(pair(words) in grammar.held_out for words, _ in training)


def test_labels_of_sentences_a_person_can_read() -> None:
    grammar = Grammar(np.random.default_rng(1))
    openers = sorted(filter(None, OPENERS), key=len, reverse=True)
    for words, label in grammar.training(200) + grammar.twins(100):
        text = " ".join(WORDS[w] for w in words)
        for opener in openers:
            text = text.removeprefix(opener + " ")
        about_movie = text[text.index("the movie was") :].split(" the ", 1)[0].split()
        praise = bool(set(GOOD) & set(about_movie))
        assert label == (praise != bool({"not", "never"} & set(about_movie))), text


def test_tags_say_the_sentences_end_and_beginning() -> None:
    words, tags, lengths = texts(np.random.default_rng(0), 20)
    for b, length in enumerate(lengths):
        start = 0
        for t in range(length):
            if words[t, b] >= FIRST_END:
                end, no = words[t, b] - FIRST_END, words[start, b] == NO
                assert set(tags[start : t + 1, b]) == {2 * end + no}
                start = t + 1
        assert start == length


def test_strings_are_held_out_by_their_digits() -> None:
    rng = np.random.default_rng(0)
    training, test = strings(rng, 300, held_out=False), strings(rng, 300, held_out=True)
    assert {len(s) for s in test} == set(range(1, LONGEST + 1))
    assert not {tuple(s) for s in training} & {tuple(s) for s in test}
    shares = [is_held_out(rng.integers(0, 10, 6)) for _ in range(2000)]
    assert np.mean(shares) == pytest.approx(0.1, abs=0.03)


def test_recall_puts_the_answer_first_and_only_there() -> None:
    x, target = recall(np.random.default_rng(0), 7, 50)
    assert x.shape == (7, 50, 8)
    np.testing.assert_array_equal(x.sum(axis=2), 1)
    np.testing.assert_array_equal(x[0].argmax(axis=1), target)
    assert not x[1:, :, :4].any()


def test_gradients_of_whole_models() -> None:
    """Central differences through embedding, encoder, decoder, softmax and masks at once."""
    rng = np.random.default_rng(0)
    count = Counter(rng)
    count.set_weights(0.9, 1.1)
    assert max(gradcheck(count.loss, count.rnn.params, count.loss_and_grads()[1]).values()) < 1e-7

    sentences = [[1, 2, 3], [4], [2, 2, 5, 6]]
    models: list[tuple[Any, Any]] = [
        (Translator(rng), [np.array(s) for s in sentences]),
        (Reader(rng), (sentences, np.array([0, 1, 1]))),
        (Tagger(True, rng), texts(rng, 3)),
    ]
    for model, batch in models:
        in_float64(model)
        grads = model.loss_and_grads(batch)[1]
        some = model.params
        directions = {name: rng.standard_normal(p.shape) for name, p in some.items()}
        position = np.zeros(1)
        start = {name: p.copy() for name, p in some.items()}

        def loss(
            model: Any = model,
            batch: Any = batch,
            some: Any = some,
            start: Any = start,
            directions: Any = directions,
            position: Any = position,
        ) -> float:
            for name, p in some.items():
                p[...] = start[name] + position[0] * directions[name]
            value: float = model.loss_and_grads(batch)[0]
            return value

        along = sum(np.vdot(grads[name], directions[name]) for name in some)
        error = gradcheck(loss, {"along": position}, {"along": np.array([along])}, eps=1e-5)
        assert error["along"] < 1e-7


def in_float64(model: Any) -> None:
    """Turn a model's parameters, and so all it computes, to float64."""
    parts = {
        n: part for n, part in vars(model).items() if isinstance(getattr(part, "params", 0), dict)
    }
    for part in parts.values():
        for name, p in part.params.items():
            part.params[name] = p.astype(np.float64)
        if hasattr(part, "dtype"):
            part.dtype = np.dtype(np.float64)
    model.params = join(**{name: part.params for name, part in parts.items()})
