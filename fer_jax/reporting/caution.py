"""What a classifier of expressions is not for."""

CAUTION = (
    'A face shows what a face does, not what a person feels. The labels are what annotators saw in a picture; they '
    'differ between annotators and cultures, and a classifier inherits that, with the bias of the images it was shown. '
    'Scores hold for images like those of the test split. Law in many places restricts inferring emotions from faces, '
    'at work and in schools above all. Do not use it to judge people.'
)
