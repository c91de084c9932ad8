"""How the demo is told: each step is printed when it is done."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from rich.padding import Padding

from quantum_memory.cli.demo_steps import DENSE_BYTES
from quantum_memory.cli.output import column_table, fact_sheet, plain, short, size_text, speed_text, time_text
from quantum_memory.cli.plot import draw
from quantum_memory.state.pad import AXES

if TYPE_CHECKING:
    from rich.console import Console

    from quantum_memory.cli.demo_folder import DemoFolder
    from quantum_memory.cli.demo_path import PADPath
    from quantum_memory.cli.demo_steps import Damage, Dense, Kept, ReadBack

_WIDEST_PLOT = 100


class DemoStory:
    """Tells the steps of the demo on a console, which may be a quiet one."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._title("Quantum Memory: a path through PAD space, remembered as states of 27 qubits")
        self._out.print()

    def tell(self, text: str, *, indent: int = 2, style: str = "", after: int = 0) -> None:
        """Print a paragraph, indented, with `after` empty lines after it."""
        self._out.print(Padding(plain(text), (0, 0, after, indent), expand=False), style=style)

    def path(self, path: PADPath) -> None:
        """Show the path."""
        self._title("1  The path")
        self.tell(f"{len(path)} points: {path.title}.")
        for note in path.notes:
            self.tell(note)
        self._out.print()
        if self._out.encoding.startswith("utf"):
            self._out.print(draw(path.values, path.marks, width=min(self._out.width, _WIDEST_PLOT)))
            self._out.print()

    def remembered(self, kept: list[Kept], place: DemoFolder) -> None:
        """Tell what was saved."""
        self._title("2  Remembered")
        size = size_text(sum(one.bytes for one in kept))
        encode, save = (median(getattr(one, f"{what}_seconds") for one in kept) for what in ("encode", "save"))
        self.tell(f"{len(kept)} entangled 27-qubit states, each with its emotional context, in {place.path}: {size}.")
        self.tell(f"{time_text(encode)} to encode one, {time_text(save)} to save it durably.", after=1)

    def mended(self, kept: list[Kept], checked: int, damage: Damage) -> None:
        """Tell how a flipped bit was caught, and the file restored."""
        self._title("3  Verified, damaged, mended")
        self.tell(f"{checked} of {len(kept)} files verified: whole, and with the content that was saved.")
        self.tell(f"Bit {damage.bit} of byte {damage.byte:,} of {damage.file} is flipped. Loading it says:")
        self.tell(damage.message, indent=4, style="red")
        self.tell(
            f"Restored from {damage.restored_from}. {_agreement(same=damage.same_content, name=damage.content_id)}"
        )
        self._out.print()

    def read_back(self, one: Kept, found: ReadBack) -> None:
        """Show a decoded memory beside what was put in."""
        self._title("4  Read back")
        self.tell(f"The restored memory, {one.label}, on the scale [-1, 1]:")
        shots = f"{found.sampled.shots} shots"
        numbers = ("put in", "decoded exactly", shots)
        table = column_table("", *numbers, "standard error", right=numbers)
        readings = zip(AXES, found.pad, found.exact.pad, found.sampled.pad, found.sampled.standard_error, strict=True)
        for axis, put, exact, sampled, error in readings:
            table.add_row(axis, f"{put:+.6f}", f"{exact:+.15f}", f"{sampled:+.4f}", f"± {error:.4f}")
        self._out.print(table)

    def dense(self, one: Kept, big: Dense | None, why_not: str | None) -> None:
        """Tell of the state vector, or why there is none."""
        self._title("5  The same memory, dense")
        if big is None:
            self.tell(f"Left out: {why_not}.", after=1)
            return
        built = f"{time_text(big.build_seconds)} to build, {time_text(big.save_seconds)} to save durably"
        self.tell(f"{one.label} as 2^27 complex64 amplitudes: {size_text(DENSE_BYTES)}, {built}.")
        checked = f"{time_text(big.verify_seconds)}, {speed_text(DENSE_BYTES, big.verify_seconds)} of amplitudes"
        self.tell(f"{size_text(big.bytes)} on disk ({', '.join(big.codecs)}), verified in {checked}.")
        self.tell(f"Bit 0 of byte {big.byte:,} is flipped. Verifying it says, after {time_text(big.catch_seconds)}:")
        self.tell(big.message, indent=4, style="red")
        again = f"Saved again in its place in {time_text(big.restore_seconds)}."
        self.tell(f"{again} {_agreement(same=big.same_content, name=big.content_id)}")
        self.tell(f"One amplitude read from the file, in {time_text(big.amplitude_seconds)}:")
        self.tell(f"<{big.digits}|psi> = {big.amplitude.real:.7g}", indent=4)
        many = f"{len(big.amplitudes)} amplitudes from number {big.first_index:,} on, in {time_text(big.slice_seconds)}"
        self.tell(f"{many}. Only the chunk that they are in is read, and checked.", after=1)

    def numbers(self, n: dict[str, float]) -> None:
        """Show the table of figures."""
        self._title("The numbers")
        times = ", ".join(f"{what} {n[f'{what}_ms']:.3g} ms" for what in ("encode", "save", "load", "decode"))
        expected = f"2/pi/sqrt(9 * {n['shots']}) = {n['sampled_rmse_expected']:.5f}"
        sheet = fact_sheet()
        for label, value in (
            ("one memory on disk", f"{size_text(n['bytes_stored_median'])}, with everything around the state"),
            ("as a state vector", f"{size_text(n['bytes_dense'])}; ratio {n['ratio']:,.0f} : 1"),
            ("content", f"{n['identical']} of {n['memories']} came back bit for bit"),
            ("fidelity", f"{n['fidelity_min']!r} at worst, |<a|b>|^2 with the state that was encoded"),
            ("time, medians", times),
            ("exact decode", f"off by {n['round_trip_error_max']:.1e} at worst, on [-1, 1]"),
            (f"{n['shots']} shots", f"RMSE {n['sampled_rmse']:.5f}; theory {expected}"),
        ):
            sheet.add_row(label, value)
        self._out.print(sheet)
        self.tell(
            "The ratio is that of these states, which a matrix product of bond dimension 2 holds exactly; a state "
            "without such structure takes all its amplitudes.",
            style="dim",
            after=1,
        )

    def _title(self, text: str) -> None:
        self._out.print(text, style="bold")


def _agreement(*, same: bool, name: str) -> str:
    return f"Its content id is {'what it was' if same else 'NOT WHAT IT WAS'}: {short(name)}."
