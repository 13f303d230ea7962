"""A wrong configuration is one sentence (file, key, what was found, what is allowed), status 1 and no job."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from project import BACKPROP, MH, PRESET, Project

from spikebench import plugins
from spikebench.cli import main
from spikebench.errors import UserError

CONFIG = "config/config.yaml"
EXPERIMENT = "config/experiments/chip_in_the_loop.yaml"
PRESET_FILE = f"config/presets/{PRESET}.yaml"
AXES = {"dataset": ["breast_cancer"], "fault": ["paper-full"], "severity": [0.0], "training_size": [20]}


def axes(**keys: object) -> Callable[[Project], None]:
    return lambda project: project.experiment(axes={**AXES, **keys})


def arm(**keys: object) -> Callable[[Project], None]:
    return lambda project: project.experiment(arms=[{**MH, **keys}])


def readings(one: dict[str, str]) -> Callable[[Project], None]:
    """An arm of a method with two variants."""

    def write(project: Project) -> None:
        project.toy()
        project.append("methods/toy.py", 'VARIANTS = {"mode": "bayes", "mean": "bayes"}\n')
        project.experiment(arms=[one])

    return write


def main_keys(**keys: object) -> Callable[[Project], None]:
    return lambda project: project.change(CONFIG, **keys)


def data_keys(**keys: object) -> Callable[[Project], None]:
    return main_keys(data={"kind": "auto", "mirror": "", "download": True, **keys})


def preset(**keys: object) -> Callable[[Project], None]:
    return lambda project: project.change(PRESET_FILE, **keys)


def text(file: str, content: str) -> Callable[[Project], None]:
    def write(project: Project) -> None:
        (project.root / file).write_text(content)

    return write


def gone(file: str) -> Callable[[Project], None]:
    return lambda project: (project.root / file).unlink()


#: What is wrong, and what the sentence must name: the file, the key, what was found, what is allowed.
MISTAKES: dict[str, tuple[Callable[[Project], None], list[str]]] = {
    "key of config.yaml": (main_keys(presett="x"), [CONFIG, "'presett'", "allowed: checkpoints, data"]),
    "key inside limits": (
        main_keys(limits={"cell_seconds": 1, "shard_second": 1}),
        [CONFIG, "limits", "'shard_second'", "allowed: cell_seconds, shard_seconds"],
    ),
    "key missing": (main_keys(jobs={}), [CONFIG, "jobs", "'seconds' is missing"]),
    "limit of 0": (
        main_keys(limits={"cell_seconds": 0, "shard_seconds": 9}),
        [CONFIG, "limits.cell_seconds", "0", "at least 1"],
    ),
    "limit in words": (
        main_keys(limits={"cell_seconds": "long", "shard_seconds": 9}),
        [CONFIG, "limits.cell_seconds", '"long"', "number"],
    ),
    "kind of data": (data_keys(kind="fake"), [CONFIG, "data.kind", '"fake"', "auto, real, simulated"]),
    "mirror": (data_keys(mirror=None), [CONFIG, "data.mirror", "null", "string"]),
    "download": (data_keys(download="maybe"), [CONFIG, "data.download", '"maybe"', "boolean"]),
    "key of data": (data_keys(mirrors="x"), [CONFIG, "data", "'mirrors'", "download, kind, mirror"]),
    "retry": (main_keys(retry="ok"), [CONFIG, "retry", '"ok"', "failed, timed-out"]),
    "fault coefficient": (
        main_keys(faults={"paper-full": {"treshold": 1.0}}),
        [CONFIG, "faults.paper-full", "'treshold'", "threshold"],
    ),
    "negative fault": (
        main_keys(faults={"paper-full": {"threshold": -1.0}}),
        [CONFIG, "faults.paper-full.threshold", "-1.0", "at least 0"],
    ),
    "preset": (main_keys(preset="huge"), ["config/presets/huge.yaml", "does not exist", "default", "full", "smoke"]),
    "path as preset": (main_keys(preset="../x"), [CONFIG, "preset", '"../x"', "config/presets/"]),
    "experiment": (
        main_keys(experiments=["chips"]),
        ["config/experiments/chips.yaml", "does not exist", "chip_in_the_loop", "grand_comparison"],
    ),
    "no experiment": (main_keys(experiments=[]), [CONFIG, "experiments", "[]", "a list of at least 1"]),
    "key of a preset": (preset(repetition=3), [PRESET_FILE, "'repetition'", "repetitions"]),
    "no repetitions": (preset(repetitions=0), [PRESET_FILE, "repetitions", "0", "at least 1"]),
    "name of a preset": (preset(name="small"), [PRESET_FILE, "name", "'small'", PRESET]),
    "method of a preset": (
        preset(settings={"mh": {}}),
        [PRESET_FILE, "settings.mh", "'mh'", "allowed: backprop", "metropolis_hastings"],
    ),
    "setting of a preset": (
        preset(settings={"backprop": {"step": 3}}),
        [PRESET_FILE, "settings.backprop", "'step'", "steps, minibatch"],
    ),
    "search space is no setting": (
        preset(settings={"backprop": {"SEARCH": {}}}),
        [PRESET_FILE, "settings.backprop", "'SEARCH'", "allowed: steps"],
    ),
    "data set of a preset": (preset(data={"iris": {}}), [PRESET_FILE, "data.iris", "'iris'", "breast_cancer"]),
    "setting of a preset's data set": (
        preset(data={"mnist_dvs": {"tests": 3}}),
        [PRESET_FILE, "data.mnist_dvs", "'tests'", "training, test, scale", "datasets/mnist_dvs.py"],
    ),
    "what the harness sets": (
        preset(data={"mnist_dvs": {"source": "mnist"}}),
        [PRESET_FILE, "data.mnist_dvs", "'source'", "training, test, scale"],
    ),
    "no repetitions of one experiment": (
        preset(repetitions_of={"data_baselines": 0}),
        [PRESET_FILE, "repetitions_of.data_baselines", "0", "at least 1"],
    ),
    "axis thinned": (preset(keep={"sevrity": [0]}), [PRESET_FILE, "keep", "'sevrity'", "severity, training_size"]),
    "severity -1": (axes(severity=[0.0, -1]), [EXPERIMENT, "axes.severity.1", "-1", "at least 0"]),
    "severity 2": (axes(severity=[2]), [EXPERIMENT, "axes.severity.0", "2", "at most 1"]),
    "training size": (axes(training_size=[0]), [EXPERIMENT, "axes.training_size.0", "0", "at least 1"]),
    "training size in words": (
        axes(training_size=["some"]),
        [EXPERIMENT, "training_size.0", '"some"', "all", "a number"],
    ),
    "all of a set without a size": (
        axes(training_size=["all"]),
        [PRESET_FILE, "data.breast_cancer.training is missing", "'all'"],
    ),
    "axis": (axes(severities=[0]), [EXPERIMENT, "axes", "'severities'", "severity"]),
    "axis left out": (
        lambda p: p.experiment(axes={k: v for k, v in AXES.items() if k != "fault"}),
        [EXPERIMENT, "axes.fault is missing"],
    ),
    "width": (axes(network=[{"hidden": [0]}]), [EXPERIMENT, "axes.network.0.hidden.0", "0", "at least 1"]),
    "layer": (
        axes(network=[{"convolution": [[4, 3, 1]]}]),
        [
            EXPERIMENT,
            "axes.network.0",
            "'convolution'",
            "allowed: architecture, convolutions, filters, hidden, leak, output_feedback, rest",
        ],
    ),
    "half a layer": (
        axes(network=[{"convolutions": [[4, 3]]}]),
        [EXPERIMENT, "axes.network.0.convolutions.0", "[4, 3]", "a list of at least 3"],
    ),
    "both kinds of layers": (
        axes(network=[{"hidden": [4], "convolutions": [[4, 3, 1]]}]),
        [EXPERIMENT, "axes.network.0", '{"hidden": [4], "convolutions": [[4, 3, 1]]}', "maxProperties 1"],
    ),
    "data set": (axes(dataset=["iris"]), [EXPERIMENT, "dataset", "'iris'", "breast_cancer", "datasets/"]),
    "setting of a data set": (
        axes(data_settings=[{"encodings": "rate"}]),
        [EXPERIMENT, "data_settings", "'encodings'", "encoding, steps"],
    ),
    "fault": (axes(fault=["paper"]), [EXPERIMENT, "fault", "'paper'", "threshold+tau+gain", "paper-full"]),
    "method": (arm(method="adam"), [EXPERIMENT, "arms: found 'adam'", "allowed: backprop", "metropolis_hastings"]),
    "mode": (arm(mode="on-chip"), [EXPERIMENT, "arms.0.mode", '"on-chip"', "off-chip, in-the-loop, oracle"]),
    "setting of a method": (
        arm(settings={"iteration": 5}),
        [EXPERIMENT, "settings", "'iteration'", "iterations, samples", "methods/metropolis_hastings.py"],
    ),
    "variant of a method without any": (
        arm(variant="mode"),
        [EXPERIMENT, "arms.variant", "'mode'", "allowed: none", "no VARIANTS", "methods/metropolis_hastings.py"],
    ),
    "variant": (
        readings({"method": "toy", "mode": "in-the-loop", "variant": "best"}),
        [EXPERIMENT, "arms.variant", "'best'", "allowed: mode, mean", "methods/toy.py"],
    ),
    "no variant": (
        readings({"method": "toy", "mode": "in-the-loop"}),
        [EXPERIMENT, "arms.variant", "found ''", "allowed: mode, mean"],
    ),
    "setting of a sweep": (
        lambda p: p.experiment(sweeps=[{"name": "severity", "settings": {"iteration": 5}}]),
        [EXPERIMENT, "sweeps.severity: settings", "'iteration'", "iterations, samples", "methods/metropolis"],
    ),
    "settings of a sweep for one of its methods": (
        lambda p: p.experiment(arms=[MH, BACKPROP], sweeps=[{"name": "severity", "settings": {"iterations": 80}}]),
        [EXPERIMENT, "sweeps.severity: settings", "'iterations'", "steps, minibatch", "methods/backprop.py"],
    ),
    "experiment of a preset's sweeps": (
        preset(sweeps={"chips": {}}),
        [PRESET_FILE, "sweeps", "'chips'", "chip_in_the_loop", "grand_comparison"],
    ),
    "sweep of a preset": (
        preset(sweeps={"chip_in_the_loop": {"severities": {}}}),
        [PRESET_FILE, "sweeps.chip_in_the_loop", "'severities'", "allowed: severity"],
    ),
    "key of a preset's sweep": (
        preset(sweeps={"chip_in_the_loop": {"severity": {"arms": []}}}),
        [
            PRESET_FILE,
            "sweeps.chip_in_the_loop.severity",
            "'arms'",
            "allowed: axes, cost, crossed, repetitions, settings, settings_of",
        ],
    ),
    "axis of a preset's sweep": (
        preset(sweeps={"chip_in_the_loop": {"severity": {"axes": {"faults": ["threshold"]}}}}),
        [PRESET_FILE, "sweeps.chip_in_the_loop.severity.axes", "'faults'", "fault, network"],
    ),
    "value of a preset's axis": (
        preset(sweeps={"chip_in_the_loop": {"severity": {"axes": {"severity": [2]}}}}),
        [PRESET_FILE, "sweeps.chip_in_the_loop.severity.axes.severity.0", "2", "at most 1"],
    ),
    "fault of a preset's sweep": (
        preset(sweeps={"chip_in_the_loop": {"severity": {"axes": {"fault": ["paper"]}}}}),
        [PRESET_FILE, "sweeps.chip_in_the_loop.severity", "axes.fault", "'paper'", "paper-full"],
    ),
    "setting of a preset's sweep": (
        preset(sweeps={"chip_in_the_loop": {"severity": {"settings": {"iteration": 5}}}}),
        [PRESET_FILE, "sweeps.chip_in_the_loop.severity: settings", "'iteration'", "iterations, samples"],
    ),
    "figure": (lambda p: p.experiment(figures=["accuracy"]), [EXPERIMENT, "figures", "'accuracy'", "mh-traces"]),
    "name of an experiment": (
        lambda p: p.change(EXPERIMENT, name="chips"),
        [EXPERIMENT, "name", "'chips'", "chip_in_the_loop"],
    ),
    "key of a claim": (
        lambda p: p.edit("config/claims.yaml", "  - id: M1\n", "  - id: M1\n    margins: 0.02\n"),
        ["config/claims.yaml", "claims.0", "'margins'"],
    ),
    "broken config.yaml": (text(CONFIG, "preset: tiny\nlimits: {a: 1\n"), [CONFIG, "line 3", "not valid YAML"]),
    "broken experiment": (text(EXPERIMENT, "name: [1,\n  2\nx: }"), [EXPERIMENT, "line 3", "not valid YAML"]),
    "empty config.yaml": (text(CONFIG, ""), [CONFIG, "found null", "keys with values"]),
    "list as preset": (text(PRESET_FILE, "- 1\n"), [PRESET_FILE, "[1]", "object"]),
    "no config.yaml": (gone(CONFIG), [CONFIG, "does not exist"]),
    "broken method": (
        text("methods/backprop.py", "def f(:\n"),
        ["methods/backprop.py", "line 1", "invalid syntax"],
    ),
}


def sentence_of(project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What `spikebench plan` ends with."""
    monkeypatch.chdir(project.root)
    monkeypatch.delenv("SPIKEBENCH_CONFIG", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["plan"])
    assert isinstance(ended.value.code, str), "a text as status: Python prints it to standard error and ends with 1"
    assert capsys.readouterr().out == ""
    return ended.value.code


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(
    mistake: str, project: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change, named = MISTAKES[mistake]
    change(project)
    sentence = sentence_of(project, capsys, monkeypatch)
    assert sentence.startswith("spikebench: ")
    assert "\n" not in sentence
    assert str(project.root) not in sentence, "absolute paths of a home are not to be printed"
    missing = [part for part in named if part not in sentence]
    assert not missing, f"{sentence!r} does not name {missing}"


def test_what_is_shipped_is_valid(project: Project) -> None:
    project.change(CONFIG, experiments=["grand_comparison"])
    for name in ("smoke", "default", "full"):
        assert project.config(preset=name).name == name


def test_a_preset_may_speak_of_an_experiment_that_is_not_listed(project: Project) -> None:
    """Its file is there but not read, so the sweeps' names cannot be checked."""
    project.change(PRESET_FILE, sweeps={"grand_comparison": {"unheard-of": {}}})
    assert [e["name"] for e in project.config().experiments] == ["chip_in_the_loop"]


def test_overrides_win_and_are_checked(project: Project) -> None:
    assert project.config(retry="failed").main["retry"] == "failed"
    assert project.config(preset="full").preset["repetitions"] == 20
    with pytest.raises(UserError, match=r"\(or --config\): \(top level\): unknown key 'seed'"):
        project.config(seed=3)


def test_an_override_with_dots_reaches_inside(project: Project) -> None:
    config = project.config(**{"data.kind": "simulated", "data.download": False, "retry": "failed"})
    assert config.main["data"] == {"kind": "simulated", "mirror": "", "download": False}
    assert config.main["retry"] == "failed"
    plain = project.config().main
    assert plain["data"]["kind"] == "auto", "nothing of it is kept"
    assert project.config(**{"limits.cell_seconds": 7}).main["limits"] == {**plain["limits"], "cell_seconds": 7}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("data.kind", "fake", 'data.kind: found "fake", allowed: auto, real, simulated'),
        ("data.kinds", "real", "data: unknown key 'kinds'; allowed: download, kind, mirror"),
        ("date.kind", "real", "(top level): unknown key 'date'"),
        ("jobs.seconds.at", 1, "jobs.seconds"),
        ("preset.kind", "real", "preset"),
    ],
)
def test_a_mistaken_override_with_dots_is_one_sentence(
    project: Project, key: str, value: object, sentence: str
) -> None:
    with pytest.raises(UserError) as raised:
        project.config(**{key: value})
    assert sentence in str(raised.value)


def test_settings_given_to_a_data_set_are_the_presets_under_the_sweeps(project: Project) -> None:
    project.change(PRESET_FILE, data={"mnist_dvs": {"training": 40, "test": 20}})
    config = project.config()
    assert config.data_settings("mnist_dvs", {}) == {"training": 40, "test": 20}
    assert config.data_settings("mnist_dvs", {"test": 10, "bins": 5}) == {"training": 40, "test": 10, "bins": 5}
    assert config.data_settings("breast_cancer", {"steps": 3}) == {"steps": 3}


def test_the_mirror_is_the_keys_folder_else_the_environments(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SPIKEBENCH_MIRROR", raising=False)
    assert project.config().mirror is None
    for folder in (tmp_path / "theirs", tmp_path / "ours", project.root / "near"):
        folder.mkdir()
    monkeypatch.setenv("SPIKEBENCH_MIRROR", str(tmp_path / "theirs"))
    assert project.config().mirror == tmp_path / "theirs"
    assert project.config(**{"data.mirror": str(tmp_path / "ours")}).mirror == tmp_path / "ours"
    assert project.config(**{"data.mirror": "near"}).mirror == project.root / "near", "relative to the project"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert project.config(**{"data.mirror": "~/ours"}).mirror == tmp_path / "ours"


def test_a_mirror_that_is_no_folder_is_one_sentence(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKEBENCH_MIRROR", "/nowhere/theirs")
    with pytest.raises(UserError, match=r"^SPIKEBENCH_MIRROR: found 'theirs', which is no folder$"):
        project.config()
    with pytest.raises(UserError, match=r"^data\.mirror of config/config\.yaml: found 'ours', which is no folder$"):
        project.config(**{"data.mirror": "ours"})


def test_an_experiment_that_is_not_listed_is_not_read(project: Project) -> None:
    (project.root / "config/experiments/half_done.yaml").write_text("{")
    assert [e["name"] for e in project.config().experiments] == ["chip_in_the_loop"]


def test_the_sweeps_settings_win_over_the_presets(project: Project) -> None:
    config = project.config()
    assert config.method_settings("backprop", {"minibatch": 8}) == {"steps": 4, "minibatch": 8}
    assert config.method_settings("backprop", {"steps": 5}) == {"steps": 5}
    assert config.method_settings("unheard_of", {}) == {}


def test_every_key_of_config_yaml_is_explained() -> None:
    """The main file is the manual: a comment stands above each top key and each key of limits and jobs."""
    lines = (Path(__file__).parents[1] / CONFIG).read_text().splitlines()
    keys = (
        "preset:",
        "experiments:",
        "retry:",
        "faults:",
        "  kind:",
        "  cell_seconds:",
        "  shard_seconds:",
        "  seconds:",
    )
    for key in keys:
        place = next(i for i, line in enumerate(lines) if line.startswith(key))
        assert lines[place - 1].lstrip().startswith("#"), key


@pytest.mark.xdist_group("workflow")
class TestThroughSnakemake:
    def refused(self, project: Project, *arguments: str) -> str:
        done = project.snakemake(*arguments)
        assert done.status == 1
        assert "Traceback" not in done.said
        assert len(done.sentences) == 1, done.said
        assert "rule train" not in done.said
        assert not (project.root / "results").exists(), "nothing was begun"
        return done.sentences[0]

    def test_severity_minus_one(self, project: Project) -> None:
        axes(severity=[-1])(project)
        sentence = self.refused(project)
        assert sentence == f"spikebench: {EXPERIMENT}: axes.severity.0: found -1, allowed: a number of at least 0"

    def test_unknown_method(self, project: Project) -> None:
        arm(method="adam")(project)
        allowed = ", ".join(plugins.names("methods", project.root))
        assert self.refused(project).endswith(f"found 'adam', allowed: {allowed} (the files of methods/)")

    def test_unknown_key_on_the_command_line(self, project: Project) -> None:
        assert "unknown key 'presett'" in self.refused(project, "--config", "presett=smoke")

    def test_yaml_that_snakemake_itself_could_not_read(self, project: Project) -> None:
        text(CONFIG, "preset: [\n")(project)
        assert f"{CONFIG} line 2: not valid YAML" in self.refused(project, "-n")


def test_the_methods_of_the_message_are_the_files(project: Project) -> None:
    project.toy("brand_new")
    known = plugins.names("methods")
    assert plugins.names("methods", project.root) == sorted([*known, "brand_new"])
