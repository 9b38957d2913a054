// An .onnx file in ONNX Runtime, by its C++ API.
#include <onnxruntime_cxx_api.h>

#include <array>

#include "picture.hpp"

Picture paint(const std::string& path, const Picture& picture) {
  // Once for an app: the environment and the session can be kept and used again.
  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "paint");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(2);
  Ort::Session session(environment, path.c_str(), options);
  Ort::AllocatorWithDefaultOptions allocator;
  const Ort::ModelMetadata metadata = session.GetModelMetadata();
  const auto said = [&](const char* key) -> std::string {
    const Ort::AllocatedStringPtr value = metadata.LookupCustomMetadataMapAllocated(key, allocator);
    return value ? value.get() : "";
  };
  const Feeding how(said("input_layout"), said("input_range"), said("output_range"));
  const Ort::AllocatedStringPtr source = session.GetInputNameAllocated(0, allocator);
  const Ort::AllocatedStringPtr target = session.GetOutputNameAllocated(0, allocator);

  // For every picture: (1, 3, height, width) in and out.
  const std::array<std::int64_t, 4> shape = {1, 3, static_cast<std::int64_t>(picture.height),
                                             static_cast<std::int64_t>(picture.width)};
  std::vector<float> values(picture.rgb.size());
  how.to_input(picture, values.data());
  const Ort::MemoryInfo memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const Ort::Value input =
      Ort::Value::CreateTensor<float>(memory, values.data(), values.size(), shape.data(), shape.size());
  const char* inputs[] = {source.get()};
  const char* outputs[] = {target.get()};
  const std::vector<Ort::Value> given =
      session.Run(Ort::RunOptions{nullptr}, inputs, &input, 1, outputs, 1);
  const std::vector<std::int64_t> made = given[0].GetTensorTypeAndShapeInfo().GetShape();
  return how.to_picture(given[0].GetTensorData<float>(), static_cast<std::size_t>(made[2]),
                        static_cast<std::size_t>(made[3]));
}
