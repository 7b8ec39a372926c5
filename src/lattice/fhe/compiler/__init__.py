"""The compiler: a trained model in, an encrypted program out. It sees the provider's weights and never a secret.

```
importers (onnx, sklearn, torch) → graph → passes (fold, fuse, fit) → packing → circuit → levels, scales, keys → program
```
A `Graph` is mathematics on tensors, a `Circuit` is mathematics on slots, a `Program` (`hal.program`) has levels.
"""
