"""The synthetic corpus: avatars that speak, rendered with exact ground truth.

The modules in the order of the work:

    plan           who says what in which clip, drawn from a seed
    speech/        sentences; voices of espeak-ng, of Kokoro and of people in recordings, each with
                   phoneme times; room acoustics
    animation/     viseme curves with co-articulation; motion of head, eyes and brows
    geometry/      mean face, identities, expressions; meshes of head, mouth, hair and glasses
    painting/      appearances and their textures, and backgrounds
    scene          head pose, lights, camera and projection
    rendering/     mesh and texture atlas of an avatar, rasterizer, shadow map
    clip           one clip, from its plan to its files
    sidecar        the ground truth beside each clip
    contact_sheet  one image of a whole corpus

`data_pipelines.synthesize` makes a corpus of videos with them, and
`data_pipelines.synthesize_speech` speech with landmarks but without images.
"""
