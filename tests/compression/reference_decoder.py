"""A decoder of the form ``low_rank`` in plain Python: floats of the language and integers, one number at a time.

It shares nothing with the package but pcodec, and is what the arithmetic of the fast decoder is compared with.
"""

import struct

from pcodec import standalone

BLOCK = 1 << 18
CONTEXTS = 24


def decode(facts, parts, *, single, complex_):
    """Return the bytes of the array that facts and parts are; `single` is float32 and complex64."""
    rows, columns = facts["shape"]
    rank, planes = facts["rank"], 1 if facts["real"] else 2
    width = planes * columns
    pivots = parts["pivots"].tolist()
    others = [row for row in range(rows) if row not in pivots]
    float_code, integer_code, bits = ("<f", "<i", 32) if single else ("<d", "<q", 64)

    basis = _row(parts, "rows", float_code[1], rank * width)
    basis = [basis[j * width : (j + 1) * width] for j in range(rank)]
    kept = _row(parts, "coefficients", "q", rank * planes * len(others))
    coefficients = [_as("<Q", "<d", (one << facts["dropped"]) % (1 << 64)) for one in kept]

    def coefficient(j, plane, row):
        return coefficients[(j * planes + plane) * len(others) + row]

    lengths = parts["residuals.lengths"].tolist()
    stream = parts["residuals"].tobytes()
    result = dict(zip(pivots, basis, strict=True))
    step = max(1, BLOCK // width)
    for start in range(0, len(others), step):
        block = range(start, min(start + step, len(others)))
        predicted = []
        for row in block:
            weights = [[coefficient(j, plane, row) for plane in range(planes)] for j in range(rank)]
            for column in range(columns):
                predicted += _predict(weights, basis, column)
        predicted = [_as(float_code, integer_code, one) for one in predicted]
        keys = _contexts(predicted, facts["contexts"], *((23, 255) if single else (52, 2047)))
        residuals = [0] * len(predicted)
        for key in range(1 if facts["contexts"] == "none" else CONTEXTS):
            places = [place for place, one in enumerate(keys) if one == key]
            length = lengths.pop(0)
            packed, stream = stream[:length], stream[length:]
            for place, residual in zip(places, _block(packed, integer_code[1], len(places)), strict=True):
                residuals[place] = residual
        actual = [
            _as(integer_code, float_code, _order(_wrap(_order(p, bits) + d, bits), bits))
            for p, d in zip(predicted, residuals, strict=True)
        ]
        for index, row in enumerate(block):
            result[others[row]] = actual[index * width : (index + 1) * width]
    assert not stream
    assert not lengths
    numbers = [number for row in range(rows) for number in result[row]]
    if complex_ and facts["real"]:
        numbers = [part for number in numbers for part in (number, 0.0)]
    return struct.pack(f"<{len(numbers)}{float_code[1]}", *numbers)


def _predict(weights, basis, column):
    """Return the real part, and where there are coefficients of two parts the imaginary one."""
    if len(weights[0]) == 1:
        p = 0.0
        for (c,), row in zip(weights, basis, strict=True):
            p = p + c * row[column]
        return [p]
    re = im = 0.0
    for (c_re, c_im), row in zip(weights, basis, strict=True):
        r_re, r_im = row[2 * column], row[2 * column + 1]
        re = re + (c_re * r_re - c_im * r_im)
        im = im + (c_re * r_im + c_im * r_re)
    return [re, im]


def _contexts(predicted, how, mantissa, mask):
    exponents = [(one >> mantissa) & mask for one in predicted]
    if how == "none":
        return [0] * len(exponents)
    if how == "level":
        tops = [max(exponents)] * len(exponents)
    else:
        tops = [max(exponents[place & ~1], exponents[place | 1]) for place in range(len(exponents))]
    return [min(top - one, CONTEXTS - 1) for top, one in zip(tops, exponents, strict=True)]


def _order(integer, bits):
    """Return the integer with the bits of a float, in the order of the floats, and the other way round."""
    return integer if integer >= 0 else ~integer - (1 << (bits - 1))


def _wrap(integer, bits):
    return (integer + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def _as(written, read, number):
    return struct.unpack(read, struct.pack(written, number))[0]


def _row(parts, name, code, count):
    assert f"{name}.lengths" not in parts  # one block: these are small
    return _block(parts[name].tobytes(), code, count)


def _block(packed, code, count):
    if len(packed) == count * struct.calcsize(f"<{code}"):
        return list(struct.unpack(f"<{count}{code}", packed))
    return standalone.simple_decompress(packed).tolist()
