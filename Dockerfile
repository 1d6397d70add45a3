# For GPU nodes. The PyTorch wheels contain CUDA, so a plain Python image and the host's driver suffice.
#   docker build -t cnnjepa .
#   docker run --gpus all --ipc=host -v /data:/data -v $PWD/runs:/app/runs cnnjepa \
#       torchrun --nproc-per-node 4 -m cnnjepa train --preset in100 --data /data/imagenet100 --resume
# --ipc=host: loader processes pass batches through shared memory, and a container has only 64 MB of it by default.
FROM python:3.11-slim-bookworm

WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY schemas schemas
COPY ablations ablations
COPY cli cli
COPY cnnjepa cnnjepa
RUN python -m pip install --no-cache-dir -c constraints.txt .

# On SIGTERM, which torchrun passes on to its processes, a run writes a checkpoint and ends.
STOPSIGNAL SIGTERM
WORKDIR /app
CMD ["cnnjepa", "--help"]
