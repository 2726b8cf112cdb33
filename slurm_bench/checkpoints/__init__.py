"""What lies on disk of a model, checked by headers and configurations alone, before any GPU is asked for.

`hub` finds the folder, `folder` checks it, `safetensors_header` reads what a weights file holds, `lora` compares a
LoRA with the model. No weight is read and no code of the model's is run. Only safetensors are accepted: a pickled
checkpoint can run anything when it is loaded, and so can a model's own Python code.
"""
