"""Images and faces: the decoder, the detectors, and the cutting of faces out of photographs."""
