"""What a training of ``manual-bptt train`` is of, and where in its folder it stands.

A run is a recipe, a seed, a version of this package, and data whose columns hold what its layout
says. A checkpoint tells of its run, and is gone on with only where everything is the same.
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import manual_bptt as mb
from manual_bptt.cli.shared import UsageError, require_regular, short

if TYPE_CHECKING:
    from manual_bptt.forecasting import Layout
    from manual_bptt.training import Training

OUTPUTS = ("model.npz", "history.jsonl", "metrics.json", "forecast.png", "report.html")
CHECKPOINT = "checkpoint.npz"
MOST_COLUMNS = 200  # that are forecast from without being named
COLUMNS = ("time", "target", "features", "group", "timezone", "unit")


def beginning(
    folder: Path, arguments: argparse.Namespace
) -> "tuple[Training | None, dict[str, Any]]":
    """Return where training stands, None at its beginning, and what it is a training of."""
    from manual_bptt.training import load_training

    path = folder / CHECKPOINT
    if not path.exists():
        if arguments.resume:
            done = "; the training there is finished" if (folder / OUTPUTS[0]).exists() else ""
            raise UsageError(f"there is no {path} to resume{done}")
        return None, _run(arguments)
    require_regular(path)
    try:
        training, tag = load_training(path)
        kept = _run_of(tag)
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: cannot be resumed: {error}") from None
    if arguments.resume:
        return training, _same(arguments, kept)
    if training.steps:
        raise UsageError(
            f"{folder} holds a training that was interrupted after step {len(training.steps)}: "
            f"go on with --resume, choose another --out, or delete {path}"
        )
    return None, _run(arguments)


def _run_of(tag: str) -> dict[str, Any]:
    """Return the run that the tag of a checkpoint tells of."""
    from manual_bptt.forecasting import as_layout

    run = json.loads(tag)
    kinds = {"version": str, "recipe": str, "seed": int, "data": str, "sha256": str}
    kinds |= {"layout": dict, "seconds": float}
    if not isinstance(run, dict) or {k: type(v) for k, v in run.items()} != kinds:
        raise ValueError("it is not a checkpoint of this command")
    as_layout(run["layout"])
    return run


def _run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what a training is of: the same run, the same bits."""
    from manual_bptt import forecasting

    path = Path(arguments.data) if arguments.data else forecasting.weather_path()
    sha256 = forecasting.fingerprint(path)  # first of all: it refuses what is no file
    return {
        "version": mb.__version__,
        "recipe": arguments.recipe or "change",
        "seed": arguments.seed or 0,
        "data": str(path.resolve()),
        "sha256": sha256,
        "layout": json.loads(json.dumps(_layout(arguments)._asdict())),
        "seconds": 0.0,
    }


def _same(arguments: argparse.Namespace, kept: dict[str, Any]) -> dict[str, Any]:
    """Return the run that a checkpoint is of, if neither options nor data say anything else."""
    from manual_bptt.forecasting import fingerprint

    require_regular(kept["data"])
    said = {"recipe": arguments.recipe, "seed": arguments.seed}
    if any(getattr(arguments, name) is not None for name in COLUMNS):
        given = argparse.Namespace(**vars(arguments))
        given.data = arguments.data or kept["data"]
        said["layout"] = json.loads(json.dumps(_layout(given)._asdict()))
    for name, value in said.items():
        if value is not None and value != kept[name]:
            raise UsageError(
                f"the training to resume has the {name} {kept[name]!r}, got {value!r}; leave the "
                "option out to go on, or choose another --out"
            )
    if kept["version"] != mb.__version__:
        raise UsageError(
            f"the training to resume was begun by version {kept['version']}, this is "
            f"{mb.__version__}; choose another --out"
        )
    data = Path(arguments.data or kept["data"])
    if fingerprint(data) != kept["sha256"]:
        raise UsageError(f"{data} is not what the training to resume began with")
    return {**kept, "data": str(data.resolve())}


def _layout(arguments: argparse.Namespace) -> "Layout":
    """Return what the columns of the data hold, as the options say, or as the header shows."""
    from manual_bptt import forecasting

    said = {name: getattr(arguments, name) for name in COLUMNS}
    given = [f"--{name}" for name, value in said.items() if value is not None]
    if arguments.data is None:
        if given:
            raise UsageError(f"{given[0]} describes the columns of a file; expected --data FILE")
        return forecasting.NEW_YORK
    if not given and (known := forecasting.recognise(arguments.data)):
        return known
    if said["time"] is None or said["target"] is None:
        header = short(", ".join(forecasting.read_header(arguments.data)))
        raise UsageError(
            f"{arguments.data}: expected --time and --target to name columns of it; it has {header}"
        )
    layout = forecasting.describe(
        arguments.data,
        time=said["time"],
        target=said["target"],
        columns=said["features"] or (),
        group=said["group"],
        timezone=said["timezone"],
        unit=said["unit"] or "",
    )
    if said["features"] is None and len(layout.columns) > MOST_COLUMNS:
        raise UsageError(
            f"{arguments.data} has {len(layout.columns)} columns to forecast from; expected "
            f"--features to name those to read, if they are more than {MOST_COLUMNS}"
        )
    return layout
