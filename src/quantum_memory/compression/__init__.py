"""How bytes get smaller: `codecs` encodes and decodes one chunk, `chooser` decides which codec an array gets."""
