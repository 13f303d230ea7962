"""The plan: which cells, in which shards and jobs, and what makes a cell stale."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import yaml
from project import BACKPROP, CHECKOUT, MH, OFF_CHIP, Project

import spikebench.sweep
from spikebench import config
from spikebench import rows as row_file
from spikebench.archives import SOURCES
from spikebench.errors import UserError
from spikebench.sweep import FACTORS, Cell, Plan, levels, make_plan

CELL = Cell(
    experiment="chip_in_the_loop",
    dataset="breast_cancer",
    data_kind="real",
    data_settings="{}",
    network='{"hidden":[8]}',
    method="backprop",
    mode="oracle",
    variant="",
    settings="{}",
    fault="paper-full",
    severity=0.5,
    training_size=20,
    repetition=3,
    preset="default",
)
#: For each axis another value.
OTHER = {
    "experiment": "grand_comparison", "dataset": "iris", "data_kind": "simulated", "data_settings": '{"steps":5}',
    "network": "{}", "method": "metropolis_hastings", "mode": "off-chip", "variant": "mode", "settings": '{"steps":1}',
    "fault": "threshold", "severity": 1.0, "training_size": 40, "repetition": 4, "preset": "full",
    "data_source": "mnist", "crossed": '{"chip":1,"read":2,"seed":3,"split":2}',
}  # fmt: skip
AXES = {"dataset": ["breast_cancer"], "fault": ["paper-full"], "severity": [0.0, 1.0], "training_size": [20]}


def digests(plan: Plan) -> dict[str, str]:
    """Cell to the key of its staleness."""
    return {p.cell.id: p.digest for p in plan.planned}


def job_digests(plan: Plan) -> dict[str, str]:
    """Job to the parameter that makes Snakemake run it again."""
    return {name: job.digest for name, job in plan.jobs.items()}


def changed(before: Plan, after: Plan) -> set[Cell]:
    """The cells whose rows a change makes stale; the plans have the same cells."""
    new = digests(after)
    assert new.keys() == digests(before).keys()
    return {p.cell for p in before.planned if new[p.cell.id] != p.digest}


def test_the_id_is_the_hash_of_all_axes() -> None:
    text = json.dumps(asdict(CELL), sort_keys=True, separators=(",", ":"))
    assert CELL.id == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert set(OTHER) == {field.name for field in fields(Cell)}
    others = {replace(CELL, **{axis: value}).id for axis, value in OTHER.items()}
    assert len(others - {CELL.id}) == len(OTHER), "every axis counts"


def test_a_shard_is_all_but_severity_and_repetition() -> None:
    """The variant is that of its training; off-chip no device is met in training, so that faults may differ, too."""
    for mode, free in (("in-the-loop", set()), ("oracle", set()), ("off-chip", {"fault"})):
        cell = replace(CELL, mode=mode)
        others = {axis: replace(cell, **{axis: value}) for axis, value in OTHER.items() if axis != "mode"}
        same = {axis for axis, other in others.items() if other.shard("x") == cell.shard("x")}
        assert same == {"severity", "repetition", "variant"} | free
    assert CELL.shard("x") != CELL.shard("y")


def test_crossed_factors_are_every_combination_once(project: Project) -> None:
    sizes = {"split": 2, "seed": 3, "chip": 1, "read": 2}
    project.experiment(axes=AXES, arms=[MH], sweeps=[{"name": "all", "crossed": sizes}])
    cells = [p.cell for p in project.plan().planned if p.cell.severity == 0.0]
    found = [levels(c.crossed, c.repetition) for c in cells]
    assert sorted(tuple(f.values()) for f in found) == sorted(itertools.product(range(2), range(3), range(1), range(2)))
    assert all(tuple(f) == FACTORS == tuple(sizes) for f in found)
    assert levels("{}", 7) == dict.fromkeys(FACTORS, 7)


def test_the_grid_by_hand(project: Project) -> None:
    project.experiment(
        axes={**AXES, "fault": ["threshold", "paper-full"], "network": [{"hidden": [4]}, {"hidden": [8]}]},
        arms=[MH, {**BACKPROP, "settings": {"steps": 2}}],
    )
    cells = [p.cell for p in project.plan().planned]
    found = {(c.method, c.mode, c.settings, c.network, c.fault, c.severity, c.repetition) for c in cells}
    arms = [("metropolis_hastings", "in-the-loop", "{}"), ("backprop", "in-the-loop", '{"steps":2}')]
    networks = ['{"hidden":[4]}', '{"hidden":[8]}']
    axes = itertools.product(arms, networks, ["threshold", "paper-full"], [0.0, 1.0], [0, 1])
    assert found == {(*arm, *rest) for arm, *rest in axes}
    assert len(cells) == len(found) == 32
    assert {c.experiment for c in cells} == {"chip_in_the_loop"}
    assert {(c.dataset, c.data_kind, c.data_settings, c.training_size, c.preset) for c in cells} == {
        ("breast_cancer", "real", "{}", 20, "tiny")
    }


class TestEveryArm:
    """``arms: every``: what lies in methods/ takes part, but for what is left out."""

    def found(self, project: Project, **sweep: object) -> dict[tuple[str, str, str], str]:
        project.experiment(axes=AXES, arms="every", sweeps=[{"name": "all", **sweep}])
        return {(c.method, c.mode, c.variant): c.settings for c in (p.cell for p in project.plan().planned)}

    def test_a_new_file_takes_part_in_all_its_modes_and_variants(self, project: Project) -> None:
        before = self.found(project)
        project.toy()
        project.append("methods/toy.py", 'VARIANTS = {"a": "x", "b": "x"}\n')
        file = project.root / "methods" / "toy.py"
        file.write_text(file.read_text().replace('MODES = ("in-the-loop",)', 'MODES = ("oracle", "off-chip")'))
        new = self.found(project).keys() - before.keys()
        assert new == {("toy", mode, variant) for mode in ("oracle", "off-chip") for variant in "ab"}
        assert {method for method, _, _ in before} == {path.stem for path in (CHECKOUT / "methods").glob("*.py")}

    def test_what_is_left_out_is_named_in_part(self, project: Project) -> None:
        every = self.found(project).keys()
        left = self.found(
            project, leave_out=[{"mode": "off-chip"}, {"method": "bisnn", "variant": "bayes-mode"}]
        ).keys()
        gone = {a for a in every if a[1] == "off-chip" or (a[0], a[2]) == ("bisnn", "bayes-mode")}
        assert left == every - gone and 0 < len(gone) < len(every)

    def test_what_is_left_out_must_exist(self, project: Project) -> None:
        with pytest.raises(UserError, match=r"leave_out: found .*'bayes'|leave_out: found .*bayes\b.*no arm"):
            self.found(project, leave_out=[{"method": "bisnn", "variant": "bayes"}])

    def test_settings_of_a_method_are_those_of_its_arms_alone(self, project: Project) -> None:
        found = self.found(project, settings_of={"backprop": {"steps": 7}})
        assert {arm for arm, settings in found.items() if settings == '{"steps":7}'} == {
            arm for arm in found if arm[0] == "backprop"
        }
        with pytest.raises(UserError, match=r"settings_of.backprop: unknown key 'step'"):
            self.found(project, settings_of={"backprop": {"step": 7}})


def test_a_cell_of_two_sweeps_is_one_cell(project: Project) -> None:
    project.experiment(
        sweeps=[
            {"name": "severity"},
            {"name": "size", "axes": {"training_size": [20, 40], "severity": [1]}},
            {"name": "again", "axes": {"severity": [1.0]}, "arms": [OFF_CHIP]},
        ],
        axes=AXES,
        arms=[MH],
    )
    planned = project.plan().planned
    assert len({p.cell.id for p in planned}) == len(planned)
    sweeps = {(p.cell.mode, p.cell.severity, p.cell.training_size): p.sweeps for p in planned}
    assert sweeps == {
        ("in-the-loop", 0.0, 20): "severity",
        ("in-the-loop", 1.0, 20): "severity;size",
        ("in-the-loop", 1.0, 40): "size",
        ("off-chip", 1.0, 20): "again",
    }
    assert {p.paper for p in planned} == {"2402.06284"}


def test_a_preset_keeps_what_it_names_of_an_axis(project: Project) -> None:
    axes = {**AXES, "severity": [0.0, 0.1, 0.5, 1.0], "training_size": [10, 40, 398]}
    project.experiment(axes=axes)
    preset = "config/presets/tiny.yaml"
    project.change(preset, keep={"severity": [0.0, 0.5, 0.7], "training_size": [20]})
    cells = [p.cell for p in project.plan().planned]
    assert {c.severity for c in cells} == {0.0, 0.5}
    assert {c.training_size for c in cells} == {398}, "none of the axis is named: its last value stays"
    project.change(preset, keep={})
    assert len(project.plan().planned) == 4 * 3 * 2


def test_jobs_are_packed_by_forecast_seconds(project: Project) -> None:
    """Shards of four cells at 0.2 s and at 0.05 s a cell into jobs of at most 1.7 s: two shards a job, and all five."""
    for method, seconds in (("slow", 0.2), ("quick", 0.05)):
        project.toy(method)
        project.edit(f"methods/{method}.py", "SECONDS_PER_CELL = 0.01", f"SECONDS_PER_CELL = {seconds}")
    project.experiment(
        axes={**AXES, "training_size": [10, 20, 40, 80, 160]},
        arms=[{"method": name, "mode": "in-the-loop"} for name in ("slow", "quick")],
    )
    project.change("config/config.yaml", jobs={"seconds": 1.7})
    plan = project.plan()
    assert [(job.name, len(job.shards), round(job.seconds, 6)) for job in plan.jobs.values()] == [
        ("chip_in_the_loop.slow.00", 2, 1.6),
        ("chip_in_the_loop.slow.01", 2, 1.6),
        ("chip_in_the_loop.slow.02", 1, 0.8),
        ("chip_in_the_loop.quick.00", 5, 1.0),
    ]
    packed = [p.cell for job in plan.jobs.values() for cells in job.shards.values() for p in cells]
    assert Counter(packed) == Counter(p.cell for p in plan.planned), "every cell in one job, once"
    for job in plan.jobs.values():
        for shard, cells in job.shards.items():
            assert {p.shard for p in cells} == {shard}
            assert job.name.startswith(f"{cells[0].cell.experiment}.{cells[0].cell.method}.")
    project.edit("methods/slow.py", "SECONDS_PER_CELL = 0.2", "SECONDS_PER_CELL = 0.8")
    slow = [job for job in project.plan().jobs.values() if ".slow." in job.name]
    assert [len(job.shards) for job in slow] == [1] * 5, "a shard above the limit has a job of its own"
    project.edit("methods/slow.py", "SECONDS_PER_CELL = 0.8", "SECONDS_PER_CELL = 0.2")
    project.change("config/presets/tiny.yaml", cost=4.0)
    costly = project.plan().jobs
    assert {n: (len(j.shards), round(j.seconds, 6)) for n, j in costly.items() if ".slow." in n} == {
        "chip_in_the_loop.slow.00": (2, 6.4),
        "chip_in_the_loop.slow.01": (2, 6.4),
        "chip_in_the_loop.slow.02": (1, 3.2),
    }


def test_off_chip_the_forecast_counts_trainings_and_a_tenth_of_the_devices(project: Project) -> None:
    """Two faults at two severities: eight devices of two trainings; in a sweep that takes three times what it says."""
    project.toy()
    file = project.root / "methods" / "toy.py"
    file.write_text(file.read_text().replace('MODES = ("in-the-loop",)', 'MODES = ("in-the-loop", "off-chip")'))
    project.edit("methods/toy.py", "SECONDS_PER_CELL = 0.01", "SECONDS_PER_CELL = 0.1")
    for mode, seconds in (("in-the-loop", 0.8), ("off-chip", 0.2 + 0.1 * 0.8)):
        arms = [{"method": "toy", "mode": mode}]
        for cost in (1.0, 3.0):
            axes = {**AXES, "fault": ["threshold", "paper-full"]}
            project.experiment(axes=axes, arms=arms, sweeps=[{"name": "all", "cost": cost}])
            assert sum(job.seconds for job in project.plan().jobs.values()) == pytest.approx(cost * seconds)
    project.change("config/presets/tiny.yaml", sweeps={"chip_in_the_loop": {"all": {"cost": 5.0}}})
    assert sum(job.seconds for job in project.plan().jobs.values()) == pytest.approx(5 * seconds)


def test_the_forecast_counts_how_heavy_the_data_is(project: Project) -> None:
    """Four cells at 0.1 s each, and four of a set that takes five times as long; jobs of at most 2 s."""
    project.toy()
    project.edit("methods/toy.py", "SECONDS_PER_CELL = 0.01", "SECONDS_PER_CELL = 0.1")
    shutil.copy(project.root / "datasets/breast_cancer.py", project.root / "datasets/heavy.py")
    project.append("datasets/heavy.py", "LOAD = 5.0\n")
    project.experiment(
        axes={**AXES, "dataset": ["breast_cancer", "heavy"]}, arms=[{"method": "toy", "mode": "in-the-loop"}]
    )
    project.change("config/config.yaml", jobs={"seconds": 2.0})
    assert [(len(job.shards), round(job.seconds, 6)) for job in project.plan().jobs.values()] == [(1, 0.4), (1, 2.0)]
    project.change("config/config.yaml", jobs={"seconds": 2.4})
    assert [(len(job.shards), round(job.seconds, 6)) for job in project.plan().jobs.values()] == [(2, 2.4)]


def test_an_arm_may_have_fewer_repetitions(project: Project) -> None:
    """At most so many: more than the preset has change nothing."""
    project.experiment(arms=[MH, {**BACKPROP, "repetitions": 1}, {**OFF_CHIP, "repetitions": 9}])
    found = {(p.cell.method, p.cell.mode, p.cell.repetition) for p in project.plan().planned}
    both = [("metropolis_hastings", "in-the-loop"), ("backprop", "off-chip")]
    assert found == {("backprop", "in-the-loop", 0), *((*arm, r) for arm in both for r in (0, 1))}


def test_an_experiment_may_have_repetitions_of_its_own(project: Project) -> None:
    project.experiment("second", axes=AXES)
    project.change("config/config.yaml", experiments=["chip_in_the_loop", "second"])
    project.change("config/presets/tiny.yaml", repetitions_of={"second": 3})
    found = Counter((p.cell.experiment, p.cell.repetition) for p in project.plan().planned if p.cell.severity == 0.0)
    first = {("chip_in_the_loop", r): 3 for r in (0, 1)}  # of three arms
    assert found == {**first, **{("second", r): 1 for r in (0, 1, 2)}}


class TestVariants:
    """Readings of one training are cells of one shard; ``x`` is read as ``a`` and ``b``."""

    @pytest.fixture
    def project(self, project: Project) -> Project:
        project.toy()
        project.append("methods/toy.py", 'VARIANTS = {"a": "x", "b": "x", "c": "c"}\n')
        arms = [{"method": "toy", "mode": "in-the-loop", "variant": variant} for variant in "abc"]
        project.experiment(axes=AXES, arms=[*arms, BACKPROP])
        return project

    def test_a_shard_holds_all_readings_of_its_training(self, project: Project) -> None:
        plan = project.plan()
        shards = {"".join(sorted({p.cell.variant for p in cells})): cells for cells in plan.shards.values()}
        assert {variants: len(cells) for variants, cells in shards.items()} == {"ab": 8, "c": 4, "": 4}
        for (_, shard), cells in plan.shards.items():
            assert {p.shard for p in cells} == {shard}
        trained = {"ab": "x", "c": "c", "": ""}
        for variants, cells in shards.items():
            assert cells[0].shard == cells[0].cell.shard(trained[variants])
        assert len({p.cell.id for p in plan.planned}) == 16

    def test_rows_name_the_shard_of_the_training(self, project: Project) -> None:
        rows = [row_file.complete(p, {}, {}) for p in project.plan().planned]
        assert {row["shard"] for row in rows if row["variant"] == "a"} == {
            row["shard"] for row in rows if row["variant"] == "b"
        }
        assert len({row["shard"] for row in rows}) == 3

    def test_a_new_reading_leaves_the_cells_as_they_were(self, project: Project) -> None:
        before = project.plan()
        arms = [{"method": "toy", "mode": "in-the-loop", "variant": variant} for variant in "ab"]
        project.experiment(axes=AXES, arms=[*arms[:1], BACKPROP])
        fewer = project.plan()
        assert digests(fewer).items() < digests(before).items()
        assert {p.shard for p in fewer.planned} < {p.shard for p in before.planned}


class TestSweepSettings:
    """What a sweep gives to all its arms, and what a preset changes of one sweep."""

    @pytest.fixture
    def project(self, project: Project) -> Project:
        arms = [BACKPROP, {**BACKPROP, "settings": {"minibatch": 4}}]
        sweeps = [{"name": "first", "settings": {"minibatch": 8, "beta1": 0.5}}, {"name": "second"}]
        project.experiment(axes={**AXES, "severity": [0.0, 0.5, 1.0]}, arms=arms, sweeps=sweeps)
        return project

    def settings(self, project: Project, sweep: str) -> set[str]:
        return {p.cell.settings for p in project.plan().planned if sweep in p.sweeps.split(";")}

    def test_the_arm_wins_over_the_preset_over_the_sweep(self, project: Project) -> None:
        assert self.settings(project, "first") == {'{"beta1":0.5,"minibatch":8}', '{"beta1":0.5,"minibatch":4}'}
        assert self.settings(project, "second") == {"{}", '{"minibatch":4}'}
        change = {"first": {"settings": {"beta1": 0.7, "minibatch": 16}}, "second": {"settings": {"beta2": 0.9}}}
        project.change("config/presets/tiny.yaml", sweeps={"chip_in_the_loop": change})
        assert self.settings(project, "first") == {'{"beta1":0.7,"minibatch":16}', '{"beta1":0.7,"minibatch":4}'}
        assert self.settings(project, "second") == {'{"beta2":0.9}', '{"beta2":0.9,"minibatch":4}'}

    def test_a_preset_gives_a_sweep_other_axes(self, project: Project) -> None:
        """Its own word on a sweep is not thinned by its general one."""
        change = {"second": {"axes": {"severity": [0.25, 0.75], "network": [{"hidden": [2]}]}}}
        project.change("config/presets/tiny.yaml", sweeps={"chip_in_the_loop": change}, keep={"severity": [0.5]})
        found = {(p.sweeps, p.cell.severity, p.cell.network) for p in project.plan().planned}
        assert found == {
            ("first", 0.5, "{}"),
            ("second", 0.25, '{"hidden":[2]}'),
            ("second", 0.75, '{"hidden":[2]}'),
        }

    def test_a_preset_gives_a_sweep_other_repetitions(self, project: Project) -> None:
        project.change("config/presets/tiny.yaml", sweeps={"chip_in_the_loop": {"second": {"repetitions": 3}}})
        planned = [(p.sweeps, p.cell.repetition) for p in project.plan().planned]
        assert Counter(planned) == {("first", 0): 6, ("first", 1): 6} | {("second", r): 6 for r in range(3)}

    def test_a_preset_leaves_a_sweep_out(self, project: Project) -> None:
        project.change("config/presets/tiny.yaml", sweeps={"chip_in_the_loop": {"second": {"repetitions": 0}}})
        assert {p.sweeps for p in project.plan().planned} == {"first"}

    def test_another_experiments_sweep_of_that_name_is_left_alone(self, project: Project) -> None:
        project.experiment("second", axes=AXES, sweeps=[{"name": "first"}])
        project.change("config/config.yaml", experiments=["chip_in_the_loop", "second"])
        before = project.plan()
        project.change("config/presets/tiny.yaml", sweeps={"second": {"first": {"axes": {"severity": [0.5]}}}})
        after = project.plan()
        of_first = {p.cell.id for p in before.planned if p.cell.experiment == "chip_in_the_loop"}
        assert of_first == {p.cell.id for p in after.planned if p.cell.experiment == "chip_in_the_loop"}
        assert {p.cell.severity for p in after.planned if p.cell.experiment == "second"} == {0.5}


class TestData:
    """What is settled of the data before the plan is made; no archive is read for it."""

    @pytest.fixture(autouse=True)
    def nothing_here(self, own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("SPIKEBENCH_MIRROR", raising=False)

    @pytest.fixture
    def project(self, project: Project) -> Project:
        project.experiment(
            axes={**AXES, "dataset": ["breast_cancer", "mnist_dvs", "cifar10_dvs"]},
            arms=[MH],
        )
        project.change(
            "config/presets/tiny.yaml",
            data={"mnist_dvs": {"training": 40, "test": 20}, "cifar10_dvs": {"training": 60, "test": 20}},
        )
        return project

    def test_kind_and_source_are_axes_of_the_cell(self, project: Project) -> None:
        def found(**overrides: object) -> set[tuple[str, str, str]]:
            cells = [p.cell for p in project.plan(**overrides).planned]
            return {(c.dataset, c.data_kind, c.data_source) for c in cells}

        assert found() == found(**{"data.kind": "simulated"})
        assert found() == {
            ("breast_cancer", "real", ""),
            ("mnist_dvs", "simulated", "mnist"),
            ("cifar10_dvs", "simulated", "cifar10"),
        }
        assert found(**{"data.kind": "real"}) == {
            ("breast_cancer", "real", ""),
            ("mnist_dvs", "real", "mnist-dvs"),
            ("cifar10_dvs", "real", "cifar10-dvs"),
        }

    def test_real_and_simulated_rows_are_never_the_same_cells(self, project: Project) -> None:
        plans = [project.plan(**{"data.kind": kind}) for kind in ("real", "simulated")]
        cells = [{p.cell.id for p in plan.planned if p.cell.dataset != "breast_cancer"} for plan in plans]
        assert cells[0] and not cells[0] & cells[1]

    def test_all_is_what_the_preset_gives_under_the_sweeps_settings(self, project: Project) -> None:
        axes = {**AXES, "training_size": ["all"]}
        project.experiment(
            axes=axes,
            arms=[MH],
            sweeps=[
                {"name": "recordings", "axes": {"dataset": ["mnist_dvs", "cifar10_dvs"]}},
                {
                    "name": "fewer",
                    "axes": {
                        "dataset": ["mnist_dvs"],
                        "data_settings": [{"training": 30}],
                        "training_size": [20, "all"],
                    },
                },
            ],
        )
        sizes = {(p.sweeps, p.cell.dataset, p.cell.training_size) for p in project.plan().planned}
        assert sizes == {
            ("recordings", "mnist_dvs", 40),
            ("recordings", "cifar10_dvs", 60),
            ("fewer", "mnist_dvs", 20),
            ("fewer", "mnist_dvs", 30),
        }

    def test_all_without_a_size_is_one_sentence(self, project: Project) -> None:
        project.experiment(axes={**AXES, "dataset": ["mnist"], "training_size": ["all"]}, arms=[MH])
        with pytest.raises(UserError, match=r"tiny\.yaml: data\.mnist\.training is missing, which .* 'all' stands for"):
            project.plan()

    def test_a_set_is_one_data_job_for_all_its_cells_and_methods(self, project: Project) -> None:
        project.change("config/experiments/chip_in_the_loop.yaml", arms=[MH, BACKPROP, OFF_CHIP])
        project.change("config/config.yaml", jobs={"seconds": 10_000})
        plan = project.plan()
        assert sorted(data.dataset for data in plan.data.values()) == ["breast_cancer", "cifar10_dvs", "mnist_dvs"]
        assert set(plan.data) == {data.name for data in plan.data.values()}
        assert len(plan.jobs) == 2
        for job in plan.jobs.values():
            assert {data.name for data in job.data} == set(plan.data)
            assert len(job.data) == 3
        for planned in plan.planned:
            assert planned.data.dataset == planned.cell.dataset
            assert (planned.data.kind, planned.data.source) == (planned.cell.data_kind, planned.cell.data_source)

    def test_a_presets_data_setting_counts_for_its_set_alone(self, project: Project) -> None:
        before = project.plan()
        settings = before.config.preset["data"]
        project.change("config/presets/tiny.yaml", data={**settings, "mnist_dvs": {"training": 40, "test": 30}})
        assert changed(before, project.plan()) == {p.cell for p in before.planned if p.cell.dataset == "mnist_dvs"}

    def test_an_archives_hash_counts_for_the_sets_made_of_it(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = project.plan()
        mnist = SOURCES["mnist"]
        monkeypatch.setitem(
            SOURCES, "mnist", replace(mnist, files=(replace(mnist.files[0], sha256="0" * 64), *mnist.files[1:]))
        )
        assert changed(before, project.plan()) == {p.cell for p in before.planned if p.cell.dataset == "mnist_dvs"}


@pytest.mark.parametrize("preset", ["smoke", "default", "full"])
def test_what_is_shipped(preset: str) -> None:
    plan = make_plan(config.load(CHECKOUT, {"preset": preset}))
    assert len({p.cell.id for p in plan.planned}) == len(plan.planned)
    assert len({(p.cell.experiment, p.shard) for p in plan.planned}) == len(plan.shards)
    limit = {"smoke": 20, "default": 75, "full": 150}[preset]
    assert len(plan.jobs) <= limit, "start-up would cost too much; raise jobs.seconds or the forecast is off"
    seconds = plan.config.main["jobs"]["seconds"]
    most = seconds * max(1.0, plan.config.preset["cost"])
    assert all(job.seconds <= most or len(job.shards) == 1 for job in plan.jobs.values())


def test_every_method_of_the_chip_experiment_meets_the_same_axes() -> None:
    """E1 of the replication: 4 arms, 3 fault sets, 6 severities; and E2's sizes at three severities."""
    plan = make_plan(config.load(CHECKOUT))
    planned = [p for p in plan.planned if p.cell.experiment == "chip_in_the_loop"]
    cells = [p.cell for p in planned if "severity" in p.sweeps.split(";")]
    assert len(cells) == 4 * 3 * 6 * plan.config.preset["repetitions"]
    arms = {(c.method, c.mode) for c in cells}
    points = {arm: {(c.fault, c.severity, c.repetition) for c in cells if (c.method, c.mode) == arm} for arm in arms}
    assert len(arms) == 4
    assert len({frozenset(p) for p in points.values()}) == 1
    sizes = {(p.cell.training_size, p.cell.severity) for p in planned if "training-size" in p.sweeps.split(";")}
    assert sizes == set(itertools.product([10, 20, 40, 80, 160, 398], [0.0, 0.5, 1.0]))


class TestStaleness:
    def test_the_same_files_give_the_same_plan(self, project: Project) -> None:
        assert digests(project.plan()) == digests(project.plan())
        assert job_digests(project.plan()) == job_digests(project.plan())

    def test_comments_docstrings_and_formatting_do_not_count(self, project: Project) -> None:
        before = project.plan()
        for file in ("methods/backprop.py", "datasets/breast_cancer.py"):
            path = project.root / file
            text = path.read_text().replace("\n\n\n", "\n\n\n\n").replace('"""', '"""Another text. ', 1)
            path.write_text(f"# A comment.\n\n{text}")
        assert not changed(before, project.plan())

    def test_docstrings_inside_do_not_count_and_other_texts_do(self, project: Project) -> None:
        project.toy()
        project.experiment(arms=[{"method": "toy", "mode": "in-the-loop"}])
        before = project.plan()
        project.edit("methods/toy.py", "streams):\n    behaviour", 'streams):\n    """Nothing."""\n    behaviour')
        project.edit("methods/toy.py", "class State(NamedTuple):\n", 'class State(NamedTuple):\n    """Weights."""\n\n')
        project.edit("methods/toy.py", '    behaviour: str = ""', "    behaviour: str = ''  # a comment")
        assert not changed(before, project.plan())
        project.edit("methods/toy.py", "behaviour: str = ''", "behaviour: str = 'x'")
        assert changed(before, project.plan()) == {p.cell for p in before.planned}

    def test_a_methods_code_counts_for_its_own_cells_alone(self, project: Project) -> None:
        before = project.plan()
        project.append("methods/backprop.py", "ADDED = 1\n")
        after = project.plan()
        assert changed(before, after) == {p.cell for p in before.planned if p.cell.method == "backprop"}
        stale = {name for name, job in after.jobs.items() if job.digest != before.jobs[name].digest}
        assert stale == {name for name in after.jobs if ".backprop." in name}
        assert after.expected != before.expected

    def test_a_data_sets_code_counts_for_all_its_cells(self, project: Project) -> None:
        before = project.plan()
        project.append("datasets/breast_cancer.py", "ADDED = 1\n")
        assert changed(before, project.plan()) == {p.cell for p in before.planned}

    def test_a_coefficient_counts_for_its_fault_alone(self, project: Project) -> None:
        project.experiment(axes={**AXES, "fault": ["threshold", "paper-full"]}, arms=[MH, BACKPROP])
        before = project.plan()
        faults = yaml.safe_load((project.root / "config/config.yaml").read_text())["faults"]
        faults["threshold"]["threshold"] = 0.9
        faults["jitter"]["jitter"] = 0.1
        project.change("config/config.yaml", faults=faults)
        assert changed(before, project.plan()) == {p.cell for p in before.planned if p.cell.fault == "threshold"}

    def test_a_presets_setting_counts_for_its_method_alone(self, project: Project) -> None:
        before = project.plan()
        settings = before.config.preset["settings"]
        project.change("config/presets/tiny.yaml", settings={**settings, "backprop": {"steps": 5}})
        assert changed(before, project.plan()) == {p.cell for p in before.planned if p.cell.method == "backprop"}

    def test_limits_packing_and_retries_do_not_count(self, project: Project) -> None:
        before = project.plan()
        limits = {"cell_seconds": 7, "shard_seconds": 70}
        project.change("config/config.yaml", limits=limits, retry="failed", jobs={"seconds": 1})
        assert not changed(before, project.plan())

    def test_the_version_of_the_results_counts_for_all(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        before = project.plan()
        monkeypatch.setattr(spikebench.sweep, "RESULTS_VERSION", spikebench.RESULTS_VERSION + 1)
        assert changed(before, project.plan()) == {p.cell for p in before.planned}

    def test_a_new_arm_leaves_the_others_cells_and_jobs_as_they_were(self, project: Project) -> None:
        before = project.plan()
        project.toy()
        project.experiment(arms=[MH, {"method": "toy", "mode": "in-the-loop"}, BACKPROP, OFF_CHIP])
        after = project.plan()
        assert digests(before).items() < digests(after).items()
        new = job_digests(after).items() - job_digests(before).items()
        assert {name for name, _ in new} == {"chip_in_the_loop.toy.00"}

    def test_a_renamed_sweep_gathers_anew_and_trains_nothing(self, project: Project) -> None:
        before = project.plan()
        project.experiment(arms=[MH, BACKPROP, OFF_CHIP], sweeps=[{"name": "renamed"}])
        after = project.plan()
        assert digests(before) == digests(after)
        assert job_digests(before) == job_digests(after)
        assert before.expected != after.expected


def test_the_plan_of_thousands_of_cells_takes_a_second_and_imports_nothing_heavy() -> None:
    """Each job makes the plan anew, and Snakemake each time the Snakefile is read."""
    script = (
        "import sys, time; from pathlib import Path; from spikebench.snakefile import plan_or_exit\n"
        "import spikebench.cli, spikebench.supervisor\n"
        f"began = time.process_time(); plan = plan_or_exit(Path({str(CHECKOUT)!r}), {{'preset': 'full'}})\n"
        "print(len(plan.planned), time.process_time() - began, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    cells, seconds, *modules = done.stdout.split()
    assert int(cells) > 3000
    assert float(seconds) < 5.0
    heavy = "torch mlflow seaborn matplotlib pandas torchmetrics snntorch sklearn numba scipy"
    assert not set(heavy.split()) & set(modules)


def test_the_projects_files_are_those_of_the_folder_it_is_called_in(project: Project) -> None:
    """A user's own checkout is planned, not the one that the package was installed from."""
    project.toy("mine")
    project.experiment(arms=[{"method": "mine", "mode": "in-the-loop"}])
    done = project.run("spikebench", "plan")
    assert done.status == 0
    assert done.said.splitlines()[0].startswith("chip_in_the_loop.mine.00: 1 shards, 4 cells")
    assert not (project.root / "results").exists(), "planning writes nothing"
