"""Every operation that writes, by name: what makes it in an empty folder."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from quantum_memory.testing.operations import Operation

from .operations import backups, checkpoints, migrations, purges, saves, stores

SAVES: dict[str, Callable[[Path], Operation]] = {
    **{
        f"save .{suffix}, {way}": partial(saves.Save, suffix=suffix, way=way)
        for suffix in ("qms", "json", "json.zlib", "npz", "msgpack", "pkl", "b64", "h5")
        for way in saves.WAYS
    },
    **{
        f"save .qms {codec}, {way}": partial(saves.Save, suffix="qms", way=way, compression=codec)
        for codec in ("none", "lz4", "zlib", "zstd")
        for way in saves.WAYS
    },
    **{
        f"save .qms encrypted, {way}": partial(saves.Save, suffix="qms", way=way, encrypt=saves.KEY)
        for way in saves.WAYS
    },
    **{
        f"save .qms in a form, {way}": partial(saves.Save, suffix="qms", way=way, state=saves.GHZ, effort="fast")
        for way in saves.WAYS
    },
}

CONVERSIONS: dict[str, Callable[[Path], Operation]] = {
    "save .qms with a certificate": partial(saves.SaveWithLoss, way="over another"),
    "convert, only new": partial(saves.Convert, way="only new"),
    "convert, over another": partial(saves.Convert, way="over another"),
    "recompress": saves.Recompress,
    "save and compress in the background": partial(saves.Background, way="over another"),
}

STORES: dict[str, Callable[[Path], Operation]] = {
    "store: begin": stores.Begin,
    "store: append": stores.Append,
    "store: append, packed": stores.AppendPacked,
    "store: append, with a backup before": stores.AppendWithBackup,
    "store: delete": stores.Delete,
    "store: optimize": stores.Optimize,
    "store: samples": stores.Samples,
    "store: import": stores.Import,
    "store: export": stores.Export,
}

CHECKPOINTS: dict[str, Callable[[Path], Operation]] = {
    "checkpoints: first": checkpoints.First,
    "checkpoints: create": checkpoints.Create,
    "checkpoints: step in the background, with removal": checkpoints.Step,
    "checkpoints: delete": checkpoints.Delete,
    "checkpoints: prune": checkpoints.Prune,
    "checkpoints: tag and pin": checkpoints.Tag,
    "checkpoints: import": checkpoints.Import,
    "checkpoints: export": checkpoints.Export,
}

BACKUPS: dict[str, Callable[[Path], Operation]] = {
    "backups: first": backups.First,
    "backups: first, encrypted": backups.FirstEncrypted,
    "backups: create": backups.Create,
    "backups: create, of a file": backups.CreateOfFile,
    "backups: restore": backups.Restore,
    "backups: restore over a folder": backups.RestoreOverFolder,
    "backups: restore without exchange": backups.RestoreWithoutExchange,
    "backups: restore a file": backups.RestoreFile,
    "backups: restore over a file": backups.RestoreOverFile,
    "backups: delete": backups.Delete,
    "backups: prune": backups.Prune,
    "backups: repair": backups.Repair,
    "backups: export": backups.Export,
    "backups: import": backups.Import,
    "backups: add a key": backups.AddKey,
    "backups: remove a key": backups.RemoveKey,
    "backups: change the key": backups.ChangeKey,
}

OTHERS: dict[str, Callable[[Path], Operation]] = {
    "purge": purges.Purge,
    "migrate: apply": migrations.Apply,
    "migrate: roll back": migrations.RollBack,
    "migrate: commit": migrations.Commit,
}

CATALOGUE = SAVES | CONVERSIONS | STORES | CHECKPOINTS | BACKUPS | OTHERS
