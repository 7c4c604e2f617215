# The things of shapes_a as a split of its own: grounds are background, as in PASCAL-5i.
things = dict(
    name='shapes_a_things',
    classes=[
        *('star', 'heart', 'moon', 'arrow', 'house', 'tree', 'fish', 'flower'),
        *('cup', 'key', 'boat', 'umbrella', 'car', 'mushroom', 'butterfly', 'rocket'),
    ],
    unseen=['car', 'mushroom', 'butterfly', 'rocket'],
)
