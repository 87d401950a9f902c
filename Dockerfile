# AnchorSfM on a processor, with the compiled kernels, the viewer, HEIC and videos. See docs/install.md.
FROM python:3.11-slim AS wheel
WORKDIR /source
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /wheel

FROM python:3.11-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheel /wheel
COPY constraints.txt /wheel/
# PyTorch's own index offers the build without CUDA, which is several gigabytes smaller
RUN wheel=$(ls /wheel/*.whl) \
    && pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        -c /wheel/constraints.txt "${wheel}[fast,heic,video,viewer]" \
    && rm -r /wheel
# A home that any user may write to: the container can run as the owner of the mounted folder (--user)
RUN useradd --create-home --uid 1000 anchorsfm && chmod 1777 /home/anchorsfm
ENV HOME=/home/anchorsfm
USER anchorsfm
WORKDIR /work
EXPOSE 8080
ENTRYPOINT ["anchorsfm"]
CMD ["--help"]
