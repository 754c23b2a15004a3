"""The sandbox model: a procedural composer. No weights; a seed, some rules and torch oscillators.

A request becomes a Style (what the words ask for), a form (sections), a Score (notes) and then sound:
`style -> form -> harmony -> arrange -> render -> master`. Everything before `render` is free of torch.
"""
