"""Read and validate ``config/``: every mistake dies here, in one sentence, before any job starts."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import referencing
import yaml

from spikebench import figures, plugins
from spikebench.errors import UserError

SCHEMAS = Path(__file__).parents[1] / "workflow" / "schemas"


def _describe(error: jsonschema.ValidationError, file: str) -> str:
    key = ".".join(str(part) for part in error.absolute_path) or "(top level)"
    found = json.dumps(error.instance)
    rule: Any = error.validator_value
    instance: Any = error.instance
    schema: Any = error.schema
    match error.validator:
        case "additionalProperties":
            allowed = sorted(schema.get("properties", {}))
            wrong = sorted(set(instance) - set(allowed))
            return f"{file}: {key}: unknown key {', '.join(map(repr, wrong))}; allowed: {', '.join(allowed)}"
        case "required":
            missing = [name for name in rule if name not in instance]
            return f"{file}: {key}: the key {', '.join(map(repr, missing))} is missing"
        case "enum":
            return f"{file}: {key}: found {found}, allowed: {', '.join(map(str, rule))}"
        case "type":
            return f"{file}: {key}: found {found}, allowed: a value of type {rule}"
        case "pattern":
            return f"{file}: {key}: found {found}, allowed: {schema.get('description', rule)}"
        case "minItems":
            return f"{file}: {key}: found {found}, allowed: a list of at least {rule}"
        case "minimum":
            return f"{file}: {key}: found {found}, allowed: a number of at least {rule}"
        case "maximum":
            return f"{file}: {key}: found {found}, allowed: a number of at most {rule}"
        case _:
            return f"{file}: {key}: found {found}, allowed: {error.validator} {json.dumps(rule)}"


def _schema(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((SCHEMAS / name).read_text())
    return schema


#: One schema may refer to another by its file's name.
_SCHEMAS: referencing.Registry[Any] = referencing.Registry(
    retrieve=lambda name: referencing.Resource.from_contents(_schema(name))  # type: ignore[call-arg]
)


def validate(document: Any, schema: str, file: str) -> None:
    """Check a document against ``workflow/schemas/<schema>.schema.json``.

    Raises:
        UserError: one sentence with the file, the key, what was found and what is allowed.
    """
    checker = jsonschema.Draft202012Validator(_schema(f"{schema}.schema.json"), registry=_SCHEMAS)
    error = jsonschema.exceptions.best_match(checker.iter_errors(document))
    if error is not None:
        raise UserError(_describe(error, file))


def read_yaml(path: Path, root: Path) -> Any:
    """Parse a YAML file.

    Raises:
        UserError: the file is missing or is not YAML; the message names file and line.
    """
    name = path.relative_to(root).as_posix()
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise UserError(f"{name} does not exist; known in {path.parent.name}: {known}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise UserError(f"{name}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None


@dataclass(frozen=True)
class Config:
    """The whole configuration, valid; mappings as they stand in the files."""

    root: Path
    main: Mapping[str, Any]
    preset: Mapping[str, Any]
    experiments: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """The preset's name."""
        return str(self.preset["name"])

    @property
    def scale(self) -> float:
        """How many times as long as in the preset default things may take; never less."""
        return max(1.0, float(self.preset["cost"]))

    @property
    def faults(self) -> Mapping[str, Mapping[str, float]]:
        """Fault families: name to coefficients at severity 1."""
        faults: Mapping[str, Mapping[str, float]] = self.main["faults"]
        return faults

    def data_settings(self, dataset: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What is handed to a data set's ``Settings``: the preset's values under the sweep's own."""
        return {**self.preset.get("data", {}).get(dataset, {}), **overrides}

    @property
    def mirror(self) -> Path | None:
        """The local folder that archives are looked for in first: ``data.mirror``, else SPIKEBENCH_MIRROR."""
        named = self.main["data"]["mirror"] or os.environ.get("SPIKEBENCH_MIRROR", "")
        return self.root / Path(named).expanduser() if named else None

    def axes(self, experiment: Mapping[str, Any], sweep: Mapping[str, Any]) -> dict[str, list[Any]]:
        """A sweep's axes: the experiment's under its own, thinned by ``keep``, under what the preset says of it."""
        axes = {**experiment["axes"], **sweep.get("axes", {})}
        for name, kept in self.preset.get("keep", {}).items():
            # A preset thins an axis to the values it names; an axis without any of them keeps its last value.
            axes[name] = [value for value in axes[name] if value in kept] or axes[name][-1:]
        return {**axes, **_change(self.preset, experiment, sweep).get("axes", {})}

    def repetitions(self, experiment: Mapping[str, Any], sweep: Mapping[str, Any]) -> int:
        """Of a sweep's points: the preset's for this sweep, the sweep's own, or the preset's for its experiment or all.

        0 leaves the sweep out.
        """
        of_all = self.preset.get("repetitions_of", {}).get(experiment["name"], self.preset["repetitions"])
        return int(_change(self.preset, experiment, sweep).get("repetitions", sweep.get("repetitions", of_all)))

    def arms(self, experiment: Mapping[str, Any], sweep: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """A sweep's arms with what it and the preset set for their method; ``every`` is all that methods/ offers."""
        given: Any = sweep.get("arms", experiment["arms"])
        arms = _every_arm(self.root) if given == "every" else given
        change = _change(self.preset, experiment, sweep)

        def settings(arm: Mapping[str, Any]) -> dict[str, Any]:
            of_method = [layer.get("settings_of", {}).get(arm["method"], {}) for layer in (sweep, change)]
            return {**of_method[0], **of_method[1], **arm.get("settings", {})}

        return [{**arm, "settings": settings(arm)} for arm in arms]

    def takes_part(
        self, experiment: Mapping[str, Any], sweep: Mapping[str, Any], arm: Mapping[str, Any], fault: str
    ) -> bool:
        """Whether an arm meets a fault in a sweep: no entry of ``leave_out`` names it."""
        out = (*experiment.get("leave_out", []), *sweep.get("leave_out", []))
        return not any(left.items() <= {**arm, "fault": fault}.items() for left in out)

    def crossed(self, experiment: Mapping[str, Any], sweep: Mapping[str, Any]) -> dict[str, int]:
        """Levels of each random factor where a sweep crosses them, else none."""
        levels: dict[str, int] = _change(self.preset, experiment, sweep).get("crossed", sweep.get("crossed", {}))
        return levels

    def cost(self, experiment: Mapping[str, Any], sweep: Mapping[str, Any]) -> float:
        """Of a cell, in multiples of what the plug-ins say; of the whole preset's ``cost`` besides."""
        return float(_change(self.preset, experiment, sweep).get("cost", sweep.get("cost", 1.0)))

    def sweep_settings(self, experiment: Mapping[str, Any], sweep: Mapping[str, Any]) -> dict[str, Any]:
        """What all arms of a sweep are given: the preset's values over the sweep's own."""
        return {**sweep.get("settings", {}), **_change(self.preset, experiment, sweep).get("settings", {})}

    def method_settings(self, method: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """What is handed to a method's ``Settings``: the preset's values under the sweep's own."""
        return {**self.preset.get("settings", {}).get(method, {}), **overrides}


def _every_arm(root: Path) -> list[Mapping[str, Any]]:
    """Every method in every mode and variant that it declares."""
    return [
        {"method": method, "mode": mode, **({"variant": variant} if variant else {})}
        for method in plugins.names("methods", root)
        for mode in plugins.constant("methods", method, "MODES", (), root)
        for variant in plugins.constant("methods", method, "VARIANTS", {}, root) or [""]
    ]


def _change(preset: Mapping[str, Any], experiment: Mapping[str, Any], sweep: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a preset says of one sweep."""
    change: Mapping[str, Any] = preset.get("sweeps", {}).get(experiment["name"], {}).get(sweep["name"], {})
    return change


def read_main(root: Path) -> dict[str, Any]:
    """The keys of ``config/config.yaml``, unchecked.

    Raises:
        UserError: the file is missing, is not YAML or holds something else than keys.
    """
    main = read_yaml(root / "config" / "config.yaml", root)
    if not isinstance(main, dict):
        raise UserError(f"config/config.yaml: found {json.dumps(main)}, allowed: keys with values")
    return main


def _override(main: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Later keys win; a key ``data.kind`` is the key ``kind`` of ``data``."""
    plain = {key: value for key, value in overrides.items() if "." not in key}
    merged = copy.deepcopy({**main, **plain})
    for key in overrides.keys() - plain.keys():
        *path, last = key.split(".")
        place = merged
        for part in path:
            if not isinstance(place.get(part), dict):
                place[part] = {}  # the schema says what is wrong with that
            place = place[part]
        place[last] = overrides[key]
    return merged


def load(root: Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read ``config/config.yaml``, the preset it names and its experiments; ``overrides`` come from ``--config``.

    Raises:
        UserError: anything wrong, in one sentence.
    """
    folder = root / "config"
    main = _override(read_main(root), overrides or {})
    validate(main, "config", "config/config.yaml (or --config)")
    preset = read_yaml(folder / "presets" / f"{main['preset']}.yaml", root)
    validate(preset, "preset", f"config/presets/{main['preset']}.yaml")
    if preset["name"] != main["preset"]:
        file = f"config/presets/{main['preset']}.yaml"
        raise UserError(f"{file}: name: found {preset['name']!r}, allowed: {main['preset']}")
    for method, settings in preset.get("settings", {}).items():
        _check_settings("methods", method, settings, f"config/presets/{preset['name']}.yaml: settings.{method}", root)
    for dataset, settings in preset.get("data", {}).items():
        _check_settings("datasets", dataset, settings, f"config/presets/{preset['name']}.yaml: data.{dataset}", root)
    validate(read_yaml(folder / "claims.yaml", root), "claims", "config/claims.yaml")
    for name in preset.get("sweeps", {}):
        known = sorted(path.stem for path in (folder / "experiments").glob("*.yaml"))
        if name not in known:
            raise UserError(
                f"config/presets/{preset['name']}.yaml: sweeps: found {name!r}, allowed: {', '.join(known)}"
            )
    experiments = tuple(_experiment(root, name, main["faults"], preset) for name in main["experiments"])
    config = Config(root, main, preset, experiments)
    if config.mirror is not None and not config.mirror.is_dir():
        place = "data.mirror of config/config.yaml" if main["data"]["mirror"] else "SPIKEBENCH_MIRROR"
        raise UserError(f"{place}: found {config.mirror.name!r}, which is no folder")
    return config


def _experiment(root: Path, name: str, faults: Mapping[str, Any], preset: Mapping[str, Any]) -> Mapping[str, Any]:
    file = f"config/experiments/{name}.yaml"
    experiment: dict[str, Any] = read_yaml(root / file, root)
    validate(experiment, "experiment", file)
    if experiment["name"] != name:
        raise UserError(f"{file}: name: found {experiment['name']!r}, allowed: {name}")
    for figure in experiment["figures"]:
        if figure not in figures.NAMES:
            raise UserError(f"{file}: figures: found {figure!r}, allowed: {', '.join(figures.NAMES)}")
    over = f"config/presets/{preset['name']}.yaml: sweeps.{name}"
    known = [sweep["name"] for sweep in experiment["sweeps"]]
    for changed in preset.get("sweeps", {}).get(name, {}):
        if changed not in known:
            raise UserError(f"{over}: found {changed!r}, allowed: {', '.join(known)}")
    for sweep in experiment["sweeps"]:
        place, change = f"{file}: sweeps.{sweep['name']}", _change(preset, experiment, sweep)
        arms = _arms_of(experiment, sweep, place, root)
        axes = {**experiment["axes"], **sweep.get("axes", {})}
        for key in ("dataset", "fault", "severity", "training_size"):
            if not axes.get(key):
                raise UserError(f"{place}: axes.{key} is missing; give it here or under the experiment's axes")
        for given, where in ((sweep, place), (change, f"{over}.{sweep['name']}")):
            _check_axes({**axes, **given.get("axes", {})}, where, faults, root)
            for arm in arms:
                _check_settings("methods", arm["method"], given.get("settings", {}), f"{where}: settings", root)
            for method, settings in given.get("settings_of", {}).items():
                _check_settings("methods", method, settings, f"{where}: settings_of.{method}", root)
    return experiment


def _arms_of(
    experiment: Mapping[str, Any], sweep: Mapping[str, Any], place: str, root: Path
) -> list[Mapping[str, Any]]:
    """A sweep's arms as they stand in the file, all valid, those that are left out among them."""
    given: Any = sweep.get("arms", experiment["arms"])
    arms: list[Mapping[str, Any]] = _every_arm(root) if given == "every" else given
    for arm in arms:
        _check_arm(arm, f"{place}: arms", root)
    for left in (*experiment.get("leave_out", []), *sweep.get("leave_out", [])):
        if not any(left.items() - {("fault", left.get("fault"))} <= arm.items() for arm in _every_arm(root)):
            raise UserError(f"{place}: leave_out: found {json.dumps(left)}, which no arm of methods/ is")
    return arms


def _check_arm(arm: Mapping[str, Any], place: str, root: Path) -> None:
    method, variant = arm["method"], arm.get("variant", "")
    _check_name("methods", method, place, root)
    _check_settings("methods", method, arm.get("settings", {}), f"{place}.settings", root)
    variants = plugins.constant("methods", method, "VARIANTS", {}, root)
    if variant not in (variants or [""]):
        allowed = ", ".join(variants) or "none, the method has no VARIANTS"
        raise UserError(f"{place}.variant: found {variant!r}, allowed: {allowed} (methods/{method}.py)")


def _check_axes(axes: Mapping[str, Any], place: str, faults: Mapping[str, Any], root: Path) -> None:
    for dataset in axes["dataset"]:
        _check_name("datasets", dataset, f"{place}: axes.dataset", root)
        for settings in axes.get("data_settings", [{}]):
            _check_settings("datasets", dataset, settings, f"{place}: axes.data_settings", root)
    for fault in axes["fault"]:
        if fault not in faults:
            raise UserError(f"{place}: axes.fault: found {fault!r}, allowed: {', '.join(faults)}")


def _check_name(kind: str, name: str, place: str, root: Path) -> None:
    known = plugins.names(kind, root)
    if name not in known:
        raise UserError(f"{place}: found {name!r}, allowed: {', '.join(known)} (the files of {kind}/)")


def _check_settings(kind: str, name: str, settings: Mapping[str, Any], place: str, root: Path) -> None:
    _check_name(kind, name, place, root)
    allowed: Sequence[str] = plugins.settings_names(kind, name, root)
    for key in settings:
        if key not in allowed:
            raise UserError(f"{place}: unknown key {key!r}; allowed: {', '.join(allowed)} ({kind}/{name}.py)")
