"""Train a reader, deep or small, on packed examples, on two cores or on a GPU.

    python training/train_network.py --work ../reader-training --base mpnet --run deep --minutes 70

Everything it writes is in ``work/runs/<run>``: `checkpoint` every ten minutes (weights, optimizer,
position), `log.jsonl`, and `final`. The same command goes on from the checkpoint. The learning rate
falls to nothing over --minutes of the clock or over --schedule-steps; with --restart-schedule
it begins again, from the weights of the checkpoint. ``work/train.pid`` has the process; it may be
stopped and continued (kill -STOP, -CONT), ended with a checkpoint (kill -TERM), and it waits while
a file ``work/PAUSE`` exists.

--teacher names a trained network, whose verdicts are then learnt too; its examples must have been
packed along (same examples, another base).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from packed_batches import RIGHT, Mix, Packed, Row, Step, batch_of, in_chunks, steps
from reading_losses import (
    DISTILLED,
    WEIGHTS,
    Outputs,
    Progress,
    distillation,
    losses,
    mean_of,
    part_of,
)
from reading_network import (
    BASES,
    TOKENIZER,
    ReadingNetwork,
    base_tokenizer,
    load_network,
    new_network,
    plain_tokenizer,
    save_network,
)

WARM_UP = 0.06  # of a schedule
HEAD_RATE = 4.0  # times the body's, as the heads begin with nothing
LONGEST_GRADIENT = 1.0
SAID_EVERY = 10  # steps
DEV_SETS = ("modern", "natural", "classic", "paraphrase")
DEV_LISTS = 15  # of each set
DEV_NEAR = 40
DEV_TOGETHER = 20  # lists read at once
DEV_ROWS = (0, 1, 2, 6)  # the right passage, two of its story, one of another


@dataclass
class Position:
    """Where a training is: steps taken, and the part of the schedule that is over."""

    step: int = 0
    scheduled: int = 0
    seconds: float = 0.0
    rows: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    begin(Training, parser)


def begin(kind: type[Training], parser: argparse.ArgumentParser) -> None:
    """Begin a training of some kind, or go on with it."""
    options = parser.parse_args()
    if (options.minutes is None) == (options.schedule_steps is None):
        parser.error("give one of --minutes and --schedule-steps")
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    training = kind(options)
    signal.signal(signal.SIGTERM, lambda *_: training.stop())
    (options.work / "train.pid").write_text(f"{os.getpid()}\n", "utf-8")
    training.run()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every training has."""
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--base", choices=sorted(BASES), default="mpnet")
    parser.add_argument("--run", required=True, help="a name for what is written")
    parser.add_argument("--start", type=Path, help="a network's folder to start from")
    parser.add_argument("--layers", type=int, help="of the base's, from the lowest; else all")
    parser.add_argument("--frozen-layers", type=int, default=0, help="layers kept as they are")
    parser.add_argument("--rate", type=float, default=4e-5)
    parser.add_argument("--scale", type=int, default=1, help="times more rows a step (GPU: 8)")
    parser.add_argument("--chunk-tokens", type=int, help="tokens read at once")
    parser.add_argument("--minutes", type=float, help="of the clock, for the schedule")
    parser.add_argument("--schedule-steps", type=int, help="steps, for the schedule")
    parser.add_argument("--restart-schedule", action="store_true")
    parser.add_argument(
        "--stop-after", type=float, default=1e9, help="minutes; the same command goes on later"
    )
    parser.add_argument("--checkpoint-minutes", type=float, default=10.0)
    parser.add_argument("--dev-minutes", type=float, default=30.0, help="between dev figures")
    parser.add_argument("--teacher", type=Path, help="the folder of a network to learn from")
    parser.add_argument("--threads", type=int, help="of the processor")
    parser.add_argument("--seed", type=int, default=0)


class Training:
    """The training of a reader; `run` takes steps until the schedule is over."""

    mix = Mix()
    weights = WEIGHTS
    distilled = DISTILLED

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer = (
            plain_tokenizer(options.start / TOKENIZER)
            if options.start
            else base_tokenizer(options.base, options.work)
        )
        self.packed = packed_of(options.work, options.base)
        self.folder: Path = options.work / "runs" / options.run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.chunk_tokens: int = options.chunk_tokens or (
            16_384 if self.device.type == "cuda" else 1_024
        )
        self.network = self.make_network().to(self.device)
        self.optimizer = optimizer_of(self.network, options.rate)
        self.position = Position()
        self._stopped = False
        self._resume()
        self.teacher: ReadingNetwork | None = None
        if options.teacher:
            self.teacher = load_network(options.teacher).to(self.device).eval()
            self.teacher_packed = packed_of(options.work, self.teacher.description.base)

    def make_network(self) -> ReadingNetwork:
        """The network to start from."""
        options = self.options
        if options.start:
            network = load_network(options.start)
        else:
            network = new_network(options.base, options.work, options.layers)
        network.freeze(options.frozen_layers)
        return network

    def make_steps(self) -> Iterator[Step]:
        """Endless steps, the same each time."""
        return steps(self.packed, scaled(self.mix, self.options.scale), self.options.seed)

    def run(self, most: int | None = None) -> bool:
        """Take the steps that are left, with a checkpoint now and then, and one at the end.

        Ends early after ``most`` steps or --stop-after minutes. True when the schedule is over.
        """
        self.network.train()
        saved = measured = clock = time.monotonic()
        recent: list[dict[str, float]] = []
        begun, first = clock, self.position.step
        for step in islice(self.make_steps(), first, None):
            self._wait()
            share = self._share()
            stopped = self._stopped or clock - begun > 60 * self.options.stop_after
            if share >= 1 or stopped or self.position.step - first == most:
                break
            self._set_rate(share)
            figures = self._take(step)
            now = time.monotonic()
            self._advance(now - clock, len(step))
            recent.append(figures | {"seconds": now - clock, "rows": float(len(step))})
            clock = now
            if self.position.step % SAID_EVERY == 0:
                self._say(mean_of(recent) | {"schedule": share})
                recent = []
            if now - saved > 60 * self.options.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
            if now - measured > 60 * self.options.dev_minutes:
                self._say(self.dev_figures())
                measured = time.monotonic()
        self.save()
        if self._share() < 1:
            return False
        self._say(self.dev_figures())
        save_network(self.network, self.tokenizer, self.folder / "final")
        return True

    def stop(self) -> None:
        """Let `run` end after its step, with a checkpoint."""
        self._stopped = True

    def _advance(self, seconds: float, rows: int) -> None:
        self.position.step += 1
        self.position.scheduled += 1
        self.position.seconds += seconds
        self.position.rows += rows

    def _share(self) -> float:
        """How much of the schedule is over, from 0 to 1."""
        if self.options.minutes is not None:
            return self.position.seconds / (60 * self.options.minutes)
        return self.position.scheduled / self.options.schedule_steps

    def _set_rate(self, share: float) -> None:
        factor = min(share / WARM_UP + 0.02, (1 - share) / (1 - WARM_UP), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * factor

    def _take(self, step: Step) -> dict[str, float]:
        """One step of the optimizer; the losses as numbers."""
        own, taught = self.losses(step)
        total = sum(self.weights[name] * loss for name, loss in own.items())
        total = total + sum(self.distilled[name] * loss for name, loss in taught.items())
        assert isinstance(total, torch.Tensor)
        total.backward()
        trained = [p for p in self.network.parameters() if p.requires_grad]
        torch.nn.utils.clip_grad_norm_(trained, LONGEST_GRADIENT)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        numbers = {name: float(loss.detach()) for name, loss in own.items()}
        return numbers | {f"taught_{name}": float(loss.detach()) for name, loss in taught.items()}

    def losses(self, step: Step) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """The losses of a step, and how far the network is from its teacher, if it has one."""
        batch, said = self._read(self.network, self.packed, step)
        taught: dict[str, torch.Tensor] = {}
        if self.teacher is not None:
            with torch.no_grad():
                _, teaching = self._read(self.teacher, self.teacher_packed, step)
            taught = distillation(batch, said, teaching)
        return losses(batch, said), taught

    def _read(self, network: ReadingNetwork, packed: Packed, step: Step) -> tuple[Any, Outputs]:
        return read_step(network, packed, step, self.chunk_tokens, self.device)

    @torch.no_grad()
    def dev_figures(self) -> dict[str, float]:
        """Figures on the stories kept aside."""
        self.network.eval()
        progress = Progress([], [], [], [])
        every = list(dev_steps(self.packed))
        for first in range(0, len(every), DEV_TOGETHER):
            group = every[first : first + DEV_TOGETHER]
            batch, said = self._read(self.network, self.packed, [row for s in group for row in s])
            begins = 0
            for step in group:
                rows = slice(begins, begins + len(step))
                progress.add(part_of(batch, rows), part_of(said, rows))
                begins += len(step)
        self.network.train()
        return progress.figures()

    def _wait(self) -> None:
        while (self.options.work / "PAUSE").exists():
            time.sleep(2)

    def _say(self, figures: dict[str, Any]) -> None:
        line = asdict(self.position) | figures | {"time": time.strftime("%H:%M:%S")}
        line = {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            print(json.dumps(line), file=log)
        print(line, flush=True)

    def save(self) -> None:
        """Put a new checkpoint in the place of the last, in one step."""
        folder, part, old = (self.folder / name for name in ("checkpoint", "part", "old"))
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        save_network(self.network, self.tokenizer, part)
        state = {"optimizer": self.optimizer.state_dict(), "position": asdict(self.position)}
        torch.save(state, part / "state.pt")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)

    def _resume(self) -> None:
        found = [self.folder / name for name in ("checkpoint", "old")]
        folder = next((f for f in found if (f / "state.pt").exists()), None)
        if folder is None:
            return
        self.network.load_state_dict(load_network(folder).state_dict())
        state = torch.load(folder / "state.pt", weights_only=True, map_location=self.device)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["rate"] = self.options.rate * group["times"]
        self.position = Position(**state["position"])
        if self.options.restart_schedule:
            self.position = replace(self.position, scheduled=0, seconds=0.0)


def read_step(
    network: ReadingNetwork, packed: Packed, step: Step, tokens: int, device: torch.device
) -> tuple[Any, Outputs]:
    """A step's rows read in chunks of like length, and put together again in their order."""
    whole = batch_of(packed, step).to(device)
    width = whole.input_ids.shape[1]
    order: list[int] = []
    judged, places = [], []
    numbers = {row: number for number, row in enumerate(step)}
    with torch.autocast(device.type, torch.bfloat16):
        for chunk in in_chunks(packed, step, tokens):
            part = batch_of(packed, chunk).to(device)
            verdict, spans = network(part.input_ids, part.attention_mask, part.token_type_ids)
            judged.append(verdict.float())
            spans = spans.float()
            places.append(torch.nn.functional.pad(spans, (0, 0, 0, width - spans.shape[1])))
            order += [numbers[row] for row in chunk]
    back = torch.tensor(order, device=device).argsort()
    verdicts, span = torch.cat(judged)[back], torch.cat(places)[back]
    return whole, Outputs(verdicts[:, 0], verdicts[:, 1], span)


def optimizer_of(network: ReadingNetwork, rate: float) -> torch.optim.Optimizer:
    """AdamW; no decay of biases and norms, a higher rate for the heads."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            times = 1.0 if name.startswith("body.") else HEAD_RATE
            decay = 0.01 if parameter.ndim > 1 else 0.0
            groups.setdefault((times, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "weight_decay": decay, "rate": rate * times, "times": times}
            for (times, decay), params in groups.items()
        ],
        lr=rate,
        betas=(0.9, 0.98),
        fused=True,
    )


def scaled(mix: Mix, scale: int) -> Mix:
    """A mix with so many times more rows a step."""
    more = {name: getattr(mix, name) * scale for name in ("lists", "singles", "pairs")}
    return replace(mix, **more)


def packed_of(work: Path, base: str) -> Packed:
    """The packed examples of a base."""
    file = work / "packed" / f"{base}.safetensors"
    if not file.exists():
        raise SystemExit(f"{file} is missing; run training/pack_examples.py --base {base}")
    return Packed(file)


def dev_steps(packed: Packed) -> Iterator[Step]:
    """Lists of the stories kept aside, and pairs of a question and its near negative."""
    rng = np.random.default_rng(0)
    for source in DEV_SETS:
        for example in rng.permutation(packed.examples(source, dev=True))[:DEV_LISTS].tolist():
            rows = packed.rows_of(example)
            yield [Row(example, rows[n], 0) for n in DEV_ROWS if n < len(rows)]
    for near in rng.permutation(packed.examples("near", dev=True))[:DEV_NEAR].tolist():
        example = int(packed.arrays["example_of"][near])
        first = packed.rows_of(example)[0]
        assert packed.arrays["row_role"][first] == RIGHT
        yield [Row(example, first, 0), Row(near, packed.rows_of(near)[0], 1)]


if __name__ == "__main__":
    main()
